"""What a leaderboard says, before it is Markdown, LaTeX or HTML: tables of short texts, the best marked, and how they were
measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from baselines.served import servable_in
from fitprune.errors import FitPruneError
from harness.results.computed import read_computed
from harness.results.refusals import Refusal, read_refusals, standing
from harness.results.store import Store
from harness.results.table import Row, Table, tables_of
from harness.results.texts import AVERAGE, COLUMNS, TIME, row_texts
from harness.tasks.specs import SUITES, suite_title
from reports.table.difficulty import Difficulty, difficulty_of
from reports.table.notes import command_of, notes_of
from reports.table.points import FLOPS, optimal_at
from reports.table.published import Quoted, published
from reports.table.rivals import RIVALS, Evidence, evidence_of_all
from reports.table.texts import each, edge_text, refusal

NAME, SERVABLE = "method", "servable in"
_MARKS = {"random": "ʳ", "downsample": "ᵈ"}


@dataclass(frozen=True)
class Text:
    """What stands in one place of the table."""

    text: str
    best: bool = False
    failed: bool = False


@dataclass
class Board:
    """One table: its heading, column -> its head, lines of column -> text, the notes under it.

    Attributes:
        evidence: what the answers of each row say, in the table's order.
        unread: what could not be read of its answers; a note, too.
        optimal: the places of the Pareto-optimal rows, average against FLOPs.
        difficulty: what rows lose on the questions that downsampling does not answer; None where it was not asked for.
    """

    heading: str
    titles: dict[str, str]
    lines: list[dict[str, Text]]
    notes: list[str]
    command: str
    table: Table
    evidence: list[Evidence]
    optimal: set[int]
    unread: Sequence[str] = ()
    difficulty: Difficulty | None = None

    @property
    def columns(self) -> list[str]:
        """The heads."""
        return list(self.titles.values())


@dataclass
class Leaderboard:
    """All tables of a results folder, what was published of their methods, and the files of it that could not be read."""

    boards: list[Board]
    published: Quoted
    damaged: list[str]
    store: Store


def read_leaderboard(folder: Path, difficulty: bool = False, processes: int = 1) -> Leaderboard:
    """The leaderboard of a results folder. Raises FitPruneError, in one line, if there is nothing to show.

    Args:
        difficulty: also what rows lose on the questions that downsampling does not answer.
        processes: that may share the work. More than one start the calling program's main module again, so it must be
            one that can be imported.
    """
    scheme, *rest = folder.parts or ("",)
    if len(scheme) > 2 and scheme.endswith(":"):  # of a URL, as a path has it; a drive has one letter
        url = f"{scheme}//{'/'.join(rest)}"
        raise FitPruneError(f"a report reads a folder of this machine: bring the results at {url} here, as aws s3 sync does")
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
    boards = [_board(table, *found) for table, found in zip(tables, evidence_of_all(tables, store, processes), strict=True)]
    if difficulty:
        for board in boards:
            board.difficulty = difficulty_of(board.table, store)
    return Leaderboard(boards, published(methods), damaged, store)


def _homeless(refusals: list[Refusal], tables: list[Table]) -> list[str]:
    """Cells without a result, of a model without any, which has no table."""
    known = {(table.model, table.data, table.limit) for table in tables}
    alone = [refusal for refusal in refusals if (refusal.cell.model, refusal.data, refusal.limit) not in known]
    return each(f"{refusal.cell.label()} has no result, nor has its model: {refusal.text}" for refusal in alone)


def titles_of(table: Table) -> dict[str, str]:
    """Column -> its head, in order. That of the time marks figures that say nothing about a GPU; suites go by their names."""
    heads = {AVERAGE: table.average_title, TIME: f"{TIME} (CPU)" if table.timed_on == ["cpu"] else TIME}
    return {
        NAME: NAME,
        **{name: heads.get(name, name) for name in COLUMNS},
        **{f"vs {rival}": f"vs {rival}" for rival in RIVALS},
        **{suite: suite_title(suite) for suite in table.suites},
        SERVABLE: SERVABLE,
    }


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
        titles=titles_of(table),
        lines=lines,
        notes=[*notes_of(table), *unread],
        command=command_of(table),
        table=table,
        evidence=evidence,
        optimal=optimal,
        unread=unread,
    )


def _line(table: Table, row: Row, evidence: Evidence, best: set[tuple[int, str]], optimal: bool) -> dict[str, Text]:
    """The texts by column, in the columns' order."""
    texts = row_texts(row, table, suite_title)
    rivals = {f"vs {rival}": evidence.against[rival] or edge_text(evidence.average(rival, table)) for rival in RIVALS}
    suites = {suite: _suite_text(row, suite, texts[suite], evidence) for suite in table.suites}
    texts = {name: texts[name] for name in COLUMNS} | rivals | suites
    if not row.results:
        texts = dict.fromkeys(texts, "–") | {AVERAGE: refusal(row)}
    figures = {suite: row.figure(suite) for suite in table.suites}
    failed = {suite for suite, figure in figures.items() if figure is not None and figure.failed}
    texts = {NAME: row.name + (" ◆" if optimal else ""), **texts, SERVABLE: servable_in(row.cell.pruner)}
    return {name: Text(text, (id(row), name) in best, name in failed) for name, text in texts.items()}


def _suite_text(row: Row, suite: str, text: str, evidence: Evidence) -> str:
    if suite in row.refused and suite not in row.results:
        return row.refused[suite].kind
    edges = {rival: evidence.edges.get(rival, {}).get(suite) for rival in _MARKS}
    marks = [_MARKS[rival] for rival, edge in edges.items() if edge is not None and edge.verdict == "beats"]
    return " ".join(part for part in (text, "".join(marks)) if part)


def _best(table: Table) -> set[tuple[int, str]]:
    """(row, column) of the highest scores among the pruned rows that were asked for the same reduction."""
    best = set()
    pruned = [row for row in table.rows if not row.is_dense]
    for reduction in {row.cell.reduction for row in pruned}:
        rivals = [row for row in pruned if row.cell.reduction == reduction]
        for column in (AVERAGE, *table.suites):
            suites = table.averaged if column == AVERAGE else [column]
            shown = {id(row): round(row.mean(suites), 1) for row in rivals if math.isfinite(row.mean(suites))}
            if len(set(shown.values())) > 1:
                best |= {(row, column) for row, score in shown.items() if score == max(shown.values())}
    return best
