"""What a leaderboard says, before it is Markdown, LaTeX or HTML: tables of short texts, the best marked, and how they were
measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from baselines.served import servable_in
from fitprune.errors import FitPruneError
from harness.results.computed import read_computed
from harness.results.refusals import Refusal, read_refusals, standing
from harness.results.store import Store
from harness.results.table import Figure, Row, Table, tables_of
from harness.tasks.specs import SUITES
from reports.table.difficulty import Difficulty, difficulty_of
from reports.table.notes import command_of, notes_of
from reports.table.points import AVERAGE, FLOPS, optimal_at, timed_on
from reports.table.published import PublishedTable, published
from reports.table.rivals import RIVALS, Edge, Evidence, evidence_of_all
from reports.table.texts import each, edge_text, figure_text, number, refusal, suite_title

SERVABLE = "servable in"
_MARKS = {"random": "ʳ", "downsample": "ᵈ"}


@dataclass(frozen=True)
class Text:
    """What stands in one place of the table."""

    text: str
    best: bool = False
    failed: bool = False


@dataclass
class Board:
    """One table: its heading, column names, lines of texts, the notes under it.

    Attributes:
        evidence: what the answers of each row say, in the table's order.
        unread: what could not be read of its answers; a note, too.
        optimal: the places of the Pareto-optimal rows, average against FLOPs.
        difficulty: what rows lose on the questions that downsampling does not answer; None where it was not asked for.
    """

    heading: str
    columns: list[str]
    lines: list[list[Text]]
    notes: list[str]
    command: str
    table: Table
    evidence: list[Evidence]
    optimal: set[int]
    unread: Sequence[str] = ()
    difficulty: Difficulty | None = None


@dataclass
class Leaderboard:
    """All tables of a results folder, what was published of their methods, and the files of it that could not be read."""

    boards: list[Board]
    published: PublishedTable
    damaged: list[str]
    store: Store


def read_leaderboard(folder: Path, difficulty: bool = False) -> Leaderboard:
    """The leaderboard of a results folder. Raises FitPruneError, in one line, if there is nothing to show.

    difficulty: also what rows lose on the questions that downsampling does not answer.
    """
    if not folder.is_dir():
        raise FitPruneError(f"results folder {folder} does not exist")
    store = Store(folder)
    results, damaged = read_computed(store)
    refusals, damaged_too = read_refusals(folder)
    damaged += damaged_too
    refusals = standing(refusals, results)
    if not results:
        said = [*damaged, *(f"{refusal.cell.label()} on {refusal.cell.suite} {refusal.text}" for refusal in refusals)]
        raise FitPruneError(f"no results in {folder}" + (f": {said[0]}" if said else "; pytest suites/ --results writes them"))
    tables = tables_of(results, list(SUITES), refusals, store=store)
    damaged += _homeless(refusals, tables)
    methods = each(row.cell.pruner for table in tables for row in table.rows)
    boards = [_board(table, *found) for table, found in zip(tables, evidence_of_all(tables, store), strict=True)]
    if difficulty:
        for board in boards:
            board.difficulty = difficulty_of(board.table, store)
    return Leaderboard(boards, published(methods), damaged, store)


def _homeless(refusals: list[Refusal], tables: list[Table]) -> list[str]:
    """Cells without a result, of a model without any, which has no table."""
    known = {(table.model, table.data, table.limit) for table in tables}
    alone = [refusal for refusal in refusals if (refusal.cell.model, refusal.data, refusal.limit) not in known]
    return each(f"{refusal.cell.label()} has no result, nor has its model: {refusal.text}" for refusal in alone)


def prefill_title(table: Table) -> str:
    """Head of the prefill column, which marks figures that say nothing about a GPU."""
    return "prefill (CPU)" if timed_on(table) == ["cpu"] else "prefill"


def heading_of(table: Table) -> str:
    """What a table is about, in a line."""
    limit = "" if table.limit is None else f", {table.limit} questions a suite"
    apart = f", {table.apart}" if table.apart else ""
    return f"{table.model}, {table.data} data{limit}{', asked until decided' if table.sequential else ''}{apart}"


def _board(table: Table, evidence: list[Evidence], unread: list[str]) -> Board:
    optimal = optimal_at(table, AVERAGE, FLOPS)
    best = _best(table)
    lines = [_line(table, row, evidence[place], best, place in optimal) for place, row in enumerate(table.rows)]
    return Board(
        heading=heading_of(table),
        columns=[
            *("pruner", "GFLOPs", "of dense", "saved", prefill_title(table), table.average_title),
            *(f"vs {rival}" for rival in RIVALS),
            *map(suite_title, table.suites),
            SERVABLE,
        ],
        lines=lines,
        notes=[*notes_of(table), *unread],
        command=command_of(table),
        table=table,
        evidence=evidence,
        optimal=optimal,
        unread=unread,
    )


def _line(table: Table, row: Row, evidence: Evidence, best: set[tuple[int, int]], optimal: bool) -> list[Text]:
    served = Text(servable_in(row.cell.pruner))
    if not row.results:
        blanks = len(RIVALS) + len(table.suites)
        return [Text(row.name), *[Text("–")] * 4, Text(refusal(row)), *[Text("–")] * blanks, served]
    figures = [row.average(table.averaged), *(row.figure(suite) for suite in table.suites)]
    texts = [figure_text(figures[0]), *(_suite_text(row, suite, evidence) for suite in table.suites)]
    average, *suites = (
        Text(text, (id(row), place) in best, figure is not None and figure.failed)
        for place, (text, figure) in enumerate(zip(texts, figures, strict=True))
    )
    return [
        Text(row.name + (" ◆" if optimal else "")),
        Text(number(row.flops / 1e9, ".3g")),
        Text(number(row.flops_share, ".0%")),
        Text(number(row.reduction, ".1%")),
        Text(number(row.speedup, ".2f") + "×"),
        average,
        *(Text(_rival_text(row, evidence, rival, table)) for rival in RIVALS),
        *suites,
        served,
    ]


def _suite_text(row: Row, suite: str, evidence: Evidence) -> str:
    if suite in row.refused and suite not in row.results:
        return row.refused[suite].kind
    marks = [mark for rival, mark in _MARKS.items() if _verdict(evidence.edges.get(rival, {}).get(suite)) == "beats"]
    return " ".join(part for part in (figure_text(row.figure(suite)), "".join(marks)) if part)


def _rival_text(row: Row, evidence: Evidence, rival: str, table: Table) -> str:
    if nobody := evidence.against[rival]:
        return nobody
    return edge_text(evidence.average(rival, table))


def _verdict(edge: Edge | None) -> str:
    return "" if edge is None else edge.verdict


def _best(table: Table) -> set[tuple[int, int]]:
    """(row, place) of the highest scores among the pruned rows that were asked for the same reduction; place 0 is
    the average.
    """
    best = set()
    pruned = [row for row in table.rows if not row.is_dense]
    for reduction in {row.cell.reduction for row in pruned}:
        rivals = [row for row in pruned if row.cell.reduction == reduction]
        for place in range(len(table.suites) + 1):
            scores = {id(row): figure.score for row in rivals if (figure := _at(row, table, place)) is not None}
            shown = {row: round(score, 1) for row, score in scores.items()}
            if len(set(shown.values())) > 1:
                best |= {(row, place) for row, score in shown.items() if score == max(shown.values())}
    return best


def _at(row: Row, table: Table, place: int) -> Figure | None:
    return row.average(table.averaged) if place == 0 else row.figure(table.suites[place - 1])
