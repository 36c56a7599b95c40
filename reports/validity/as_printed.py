"""`asked_as_printed`: which rows of a measured table prune as printed ones do, by each method's own parameters."""

from typing import Any

from fitprune.errors import FitPruneError
from harness.cells import Cell
from harness.paper.budgets import Budget, converted
from harness.pruners.solve import solve
from harness.results.table import Table
from reports.validity.agreement import known_tables


def asked_as_printed(table: Table, model: str, tokens: int, config: Any, here: int) -> dict[str, float]:
    """Method → the asked reduction of its row that prunes as printed tables of `model` do at `tokens` visual tokens, by each
    method's own parameters as `fitprune paper` converts them; methods without such a row are left out.

    Args:
        config, here: of the measured model, and the visual tokens of its prompts.
    """
    settings = [(each, row.setting) for each in known_tables(model) for row in each.rows if row.setting.tokens == tokens]
    found: dict[str, float] = {}
    if not settings:
        return found
    for name in dict.fromkeys(row.cell.pruner for row in table.rows if not row.is_dense and row.cell.reduction is not None):
        try:
            budget = converted(*settings[0], name, table.model, config, here)
        except FitPruneError:  # the method cannot leave so many
            continue
        for row in table.rows:
            cell = row.cell
            if cell.pruner == name and cell.reduction is not None and not cell.positions and _same(cell, budget, config, here):
                found[name] = cell.reduction
    return found


def _same(cell: Cell, budget: Budget, config: Any, tokens: int) -> bool:
    """Whether a row's reduction comes to the very parameters of a budget; a recipe is fitted for a reduction."""
    if budget.pruner is None:
        return cell.reduction == budget.reduction
    try:
        return solve(cell.pruner, float(cell.reduction or 0), config, visual_tokens=tokens) == budget.pruner
    except FitPruneError:
        return False
