"""`view_of`: what the page of a published table says, before it is Markdown or HTML."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from harness.cells import Cell
from harness.paper.cells import Paper, PaperCell
from harness.paper.run import Outcome
from harness.published.tables import columns
from harness.results.result import Result
from harness.results.texts import number, plus_minus
from reports.table.texts import each


@dataclass(frozen=True)
class Compared:
    """What stands in one place of the table.

    Attributes:
        published: as printed.
        ours: score ± half-width of the 95 % interval, in points; empty where nothing was measured.
        difference: ours less what is printed, in points, with its sign.
        covered: whether the interval covers what is printed; None where there is no interval.
        mark: number of the reason why nothing was measured, from 1 on; 0 where something was.
    """

    published: str
    ours: str = ""
    difference: str = ""
    covered: bool | None = None
    mark: int = 0

    @property
    def verdict(self) -> str:
        """Whether the interval covers what is printed, in a word."""
        return {True: "covered", False: "not covered", None: "no interval"}[self.covered] if self.ours else ""


@dataclass(frozen=True)
class Section:
    """The rows of one setting: method, then a place for each column, None where nothing is printed."""

    heading: str
    rows: list[tuple[str, list[Compared | None]]]


@dataclass(frozen=True)
class View:
    """The page.

    Attributes:
        head: what was compared, a line each.
        sums: how many figures are covered, and how many were measured.
        titles: of the columns.
        budgets: what each row's setting was taken for.
        reasons: why figures were not measured, in the order of their marks.
        differences: what was made otherwise in print.
        notes: what the results say of themselves.
    """

    title: str
    head: list[str]
    sums: str
    titles: list[str]
    sections: list[Section]
    budgets: list[str]
    reasons: list[str]
    differences: list[str]
    notes: list[str]
    command: str


def view_of(paper: Paper, outcomes: Mapping[Cell, Outcome], circumstances: str, command: str) -> View:
    """The page of a table whose cells have run; `circumstances` says on which data, `command` makes the page again."""
    table = paper.table
    reasons = each(_reason(entry, outcomes) for entry in paper.cells if _reason(entry, outcomes))
    places = {entry.place: _compared(entry, outcomes, reasons) for entry in paper.cells}
    names = [name for name in columns() if name in table.columns]
    sections = []
    for setting in each(row.setting.name for row in table.rows):
        rows = [row for row in table.rows if row.setting.name == setting]
        lines = [(row.method, [places.get((setting, row.method, name)) for name in names]) for row in rows]
        sections.append(Section(setting, lines))
    measured = [place for place in places.values() if place.ours]
    covered = sum(place.covered is True for place in measured)
    return View(
        title=f"{table.name} beside {paper.model}",
        head=[f"Published: {table.source}; {table.model}, {table.visual_tokens} visual tokens.", f"Here: {circumstances}."],
        sums=f"{len(measured)} of {len(places)} printed figures were measured here; "
        f"the 95 % interval covers {covered} of them.",
        titles=[columns()[name].title for name in names],
        sections=sections,
        budgets=[f"{method}: {words}." for (_, method), words in paper.budgets.items()],
        reasons=reasons,
        differences=paper.differences(),
        notes=each(note for outcome in outcomes.values() for note in _notes(outcome)),
        command=command,
    )


def _notes(outcome: Outcome) -> list[str]:
    return [] if isinstance(outcome, str) else [note for note in (outcome.dense_fault, *outcome.note.split("; ")) if note]


def _reason(entry: PaperCell, outcomes: Mapping[Cell, Outcome]) -> str:
    """Why a figure was not measured; empty where it was."""
    if entry.cell is None:
        return entry.reason
    outcome = outcomes[entry.cell]
    return outcome if isinstance(outcome, str) else ""


def _compared(entry: PaperCell, outcomes: Mapping[Cell, Outcome], reasons: list[str]) -> Compared:
    if reason := _reason(entry, outcomes):
        return Compared(entry.value, mark=reasons.index(reason) + 1)
    assert entry.cell is not None
    result = outcomes[entry.cell]
    assert isinstance(result, Result)
    printed, (low, high) = entry.column.points(entry.value), result.score_ci95
    published = entry.value if entry.column.scale == 100 else f"{entry.value} ({number(printed, '.1f')} points)"
    return Compared(
        published,
        plus_minus(result.score, (high - low) / 2),
        number(result.score - printed, "+.1f").replace("-", "−"),
        low <= printed <= high if math.isfinite(low) else None,
    )
