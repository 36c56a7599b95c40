"""The list of cells that `--collect-only` shows, made of the options."""

from pathlib import Path
from typing import Any

import pytest

from baselines.registry import get_pruner_class
from fitprune.errors import FitPruneError
from harness.cells import AUTHORS, DENSE, FITPRUNE, Cell
from harness.models.registry import find_model
from harness.models.shipped import transformers_config
from harness.plugin.options import RunOptions
from harness.plugin.selection import LMMS, suite_of, without_file
from harness.tasks.specs import find_suite


def cells_of(options: RunOptions, suite: str) -> list[Cell]:
    """The cells of one suite: per model the dense one, then each pruner at each reduction, with each choice of position ids."""
    cells = []
    for model in options.models:
        config = None if options.positions == (AUTHORS,) else transformers_config(find_model(model))
        if DENSE in options.pruners:
            cells.append(Cell(model, DENSE, None, suite))
        for pruner in (pruner for pruner in options.pruners if pruner != DENSE):
            for ids in _choices(options, config, pruner):
                if pruner == FITPRUNE and options.recipe:
                    cells.append(Cell(model, pruner, None, suite, options.recipe, ids))
                else:
                    cells += [Cell(model, pruner, reduction, suite, positions=ids) for reduction in options.reductions]
    return cells


def _choices(options: RunOptions, config: Any, pruner: str) -> list[str]:
    """What cells ask of their pruner, each choice once: nothing where it is to be as its authors have it, in whatever words.

    `config` is the model's; None where nothing else is asked for.
    """
    own = AUTHORS if config is None else get_pruner_class(pruner).own_positions(config)
    return list(dict.fromkeys("" if positions in (AUTHORS, own) else positions for positions in options.positions))


def cell_ids(cells: list[Cell]) -> list[str]:
    """Test ids such as `llava-tiny-fitprune-0.5`; a folder or hub id goes by its last part unless two models share that."""
    short = {cell.model: Path(cell.model).name or cell.model for cell in cells}
    unique = len(set(short.values())) == len(short)
    return [cell.label(short[cell.model] if unique else None) for cell in cells]


def parametrize_cells(metafunc: pytest.Metafunc, options: RunOptions) -> None:
    """Parametrise a test that uses the `cell` fixture; its name after `test_` is the suite, or says that it runs all suites
    that were named and have no file beside it.
    """
    name = suite_of(metafunc.function.__name__)
    try:
        if name != LMMS:
            cells = cells_of(options, find_suite(name).name)
            ids = cell_ids(cells)
        else:
            cells = [
                cell
                for suite in without_file(options.suites, metafunc.definition.path.parent)
                for cell in cells_of(options, suite)
            ]
            ids = [f"{label}-{cell.suite}" for label, cell in zip(cell_ids(cells), cells, strict=True)]
    except FitPruneError as error:
        raise pytest.UsageError(str(error)) from None
    metafunc.parametrize("cell", cells, ids=ids, indirect=True)
