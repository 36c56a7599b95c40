"""The list of cells that `--collect-only` shows, made of the options."""

import dataclasses
from pathlib import Path

import pytest

from baselines.registry import get_pruner_class
from fitprune.errors import unknown_name
from harness.cells import AUTHORS, DENSE, FITPRUNE, Cell
from harness.plugin.options import RunOptions


def cells_of(options: RunOptions, suite: str) -> list[Cell]:
    """The cells of one suite: per model the dense one, then each pruner at each reduction, with each choice of position ids."""
    cells = []
    for model in options.models:
        if DENSE in options.pruners:
            cells.append(Cell(model, DENSE, None, suite))
        for pruner in (pruner for pruner in options.pruners if pruner != DENSE):
            for positions in options.positions:
                if (ids := _asked(pruner, positions)) is None:
                    continue
                if pruner == FITPRUNE and options.recipe:
                    cells.append(Cell(model, pruner, None, suite, options.recipe, ids))
                else:
                    cells += [Cell(model, pruner, reduction, suite, positions=ids) for reduction in options.reductions]
    return cells


def _asked(pruner: str, positions: str) -> str | None:
    """What a cell asks of its pruner: nothing where it is to be as its authors have it; None for what these do anyway."""
    if positions == AUTHORS:
        return ""
    fields = {field.name: field.default for field in dataclasses.fields(get_pruner_class(pruner))}
    return None if fields["positions"] == positions else positions


def cell_ids(cells: list[Cell]) -> list[str]:
    """Test ids such as `llava-tiny-fitprune-0.5`; a folder or hub id goes by its last part unless two models share that."""
    short = {cell.model: Path(cell.model).name or cell.model for cell in cells}
    unique = len(set(short.values())) == len(short)
    return [cell.label(short[cell.model] if unique else None) for cell in cells]


def parametrize_cells(metafunc: pytest.Metafunc, options: RunOptions) -> None:
    """Parametrise a test that uses the `cell` fixture; its name after `test_` is the suite."""
    from harness.tasks.specs import SUITES

    suite = metafunc.function.__name__.removeprefix("test_")
    if suite not in SUITES:
        raise pytest.UsageError(str(unknown_name("suite", suite, SUITES)))
    cells = cells_of(options, suite)
    metafunc.parametrize("cell", cells, ids=cell_ids(cells), indirect=True)
