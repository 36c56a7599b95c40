"""From the options to the list of cells that `--collect-only` shows."""

from pathlib import Path

import pytest

from fitprune.errors import unknown_name
from harness.cells import DENSE, FITPRUNE, Cell
from harness.plugin.options import RunOptions


def cells_of(options: RunOptions, suite: str) -> list[Cell]:
    """The cells of one suite: per model the dense one, then each pruner at each reduction."""
    cells = []
    for model in options.models:
        if DENSE in options.pruners:
            cells.append(Cell(model, DENSE, None, suite))
        for pruner in options.pruners:
            if pruner == FITPRUNE and options.recipe:
                cells.append(Cell(model, pruner, None, suite, options.recipe))
            elif pruner != DENSE:
                cells += [Cell(model, pruner, reduction, suite) for reduction in options.reductions]
    return cells


def cell_ids(cells: list[Cell]) -> list[str]:
    """Test ids such as `llava-tiny-fitprune-0.5`; a folder or hub id goes by its last part unless two models share that."""
    short = {cell.model: Path(cell.model).name or cell.model for cell in cells}
    unique = len(set(short.values())) == len(short)
    return [cell.label(short[cell.model] if unique else None) for cell in cells]


def parametrize_cells(metafunc: pytest.Metafunc, options: RunOptions) -> None:
    """Parametrise a test that uses the `cell` fixture; its name after `test_` is the suite."""
    from harness.tasks import SUITES

    suite = metafunc.function.__name__.removeprefix("test_")
    if suite not in SUITES:
        raise pytest.UsageError(str(unknown_name("suite", suite, SUITES)))
    cells = cells_of(options, suite)
    metafunc.parametrize("cell", cells, ids=cell_ids(cells), indirect=True)
