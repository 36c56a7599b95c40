"""`Paper`: a published table beside a model here: for each printed figure the cell that measures it, or why none does."""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fitprune.errors import FitPruneError
from harness.cells import DENSE, Cell
from harness.paper.budgets import Budget, converted
from harness.paper.measurable import measurable
from harness.published.tables import Column, PublishedRow, PublishedTable, Setting, columns
from harness.tasks.preflight import check_data


@dataclass(frozen=True)
class PaperCell:
    """One printed figure.

    Attributes:
        value: as printed.
        cell: what measures it here; None where nothing does, for `reason`.
    """

    row: PublishedRow
    column: Column
    value: str
    cell: Cell | None = None
    reason: str = ""

    @property
    def place(self) -> tuple[str, str, str]:
        """Where it stands in its table: setting, method, column."""
        return self.row.setting.name, self.row.method, self.column.name


@dataclass(frozen=True)
class Paper:
    """A table and the model that is asked for its figures.

    Attributes:
        tokens: visual tokens of the model's prompts.
        budgets: what a row's setting was taken for, in words, by setting and method.
    """

    table: PublishedTable
    model: str
    tokens: int
    cells: list[PaperCell]
    budgets: Mapping[tuple[str, str], str]

    @property
    def runnable(self) -> list[Cell]:
        """Each cell once: suite by suite, of each the dense model first."""
        found = dict.fromkeys(entry.cell for entry in self.cells if entry.cell is not None)
        suites = list(dict.fromkeys(cell.suite for cell in found))
        return sorted(found, key=lambda cell: (suites.index(cell.suite), not cell.is_dense))

    def differences(self) -> list[str]:
        """What was made otherwise than here, a line each: of the whole table, then of columns."""
        said = [f"{name.capitalize()}, in print: {text}" for name, text in self.table.protocol.items()]
        if self.model != self.table.model:
            said.insert(
                0, f"The table is of {self.table.model}, the figures here are of {self.model}: no difference is a method's."
            )
        if self.tokens != self.table.visual_tokens:
            counted = f"The table counts {self.table.visual_tokens} visual tokens a prompt; {self.model} has {self.tokens}"
            said.append(f"{counted}, of which the same shares are kept.")
        said.append("Position ids, here: as each method's authors have them.")
        used = {(entry.column.name, entry.cell.suite) for entry in self.cells if entry.cell is not None}
        for column in columns().values():
            said += [f"{column.title}: {text}." for suite, text in column.differs.items() if (column.name, suite) in used]
        return said


def paper_of(
    table: PublishedTable,
    model: str,
    config: Any,
    tokens: int,
    data: str,
    suites: Collection[str] = (),
    pruners: Collection[str] = (),
    left: int | None = None,
) -> Paper:
    """The table beside a model.

    Args:
        config: the model's transformers configuration.
        tokens: visual tokens of its prompts.
        data: where the suites' questions are, as `pytest suites/ --data` takes it.
        suites, pruners: those that are asked for; empty for all.
        left: the visual tokens of the rows that are asked for beside the dense one; None for all rows.
    """
    made, unfit = [], functools.cache(functools.partial(_unfit, data))
    budgets: dict[tuple[str, str], str] = {}
    solved: dict[tuple[Setting, str], Budget | str] = {}
    for row in table.rows:
        for name, value in row.values.items():
            column = columns()[name]
            suite, reason = measurable(table, row, column, suites)
            cell = None
            others = row.pruner != DENSE and left not in (None, row.setting.tokens)
            if not reason and (others or (suites and suite not in suites) or (pruners and row.pruner not in pruners)):
                reason = "not asked for"
            reason = reason or unfit(suite)
            if not reason and row.pruner == DENSE:
                cell = Cell(model, DENSE, None, suite)
            elif not reason:
                if (row.setting, row.pruner) not in solved:
                    solved[row.setting, row.pruner] = _budget(table, row, model, config, tokens)
                budget = solved[row.setting, row.pruner]
                if isinstance(budget, str):
                    reason = budget
                else:
                    cell = Cell(model, row.pruner, budget.reduction, suite, budget.recipe)
                    budgets[row.setting.name, row.method] = budget.words
            made.append(PaperCell(row, column, value, cell, reason))
    return Paper(table, model, tokens, made, budgets)


def _unfit(data: str, suite: str) -> str:
    """Why a suite's data cannot be used; empty where they can."""
    try:
        check_data(suite, data)
    except FitPruneError as error:
        return str(error)
    return ""


def _budget(table: PublishedTable, row: PublishedRow, model: str, config: Any, tokens: int) -> Budget | str:
    try:
        return converted(table, row.setting, row.pruner, model, config, tokens)
    except FitPruneError as error:
        return str(error)
