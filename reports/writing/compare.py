"""How the rows of one results folder differ from the same rows of another: with arrows, and with significance where the two
asked the same questions.
"""

import math

from fitprune.errors import FitPruneError
from harness.results.result import Result
from harness.results.store import Store
from harness.results.table import Row, Table
from harness.results.texts import number
from harness.statistics import paired_drop
from harness.tasks.specs import suite_title
from reports.table.leaderboard import Leaderboard, heading_of
from reports.table.rivals import Edge, mean_edge
from reports.table.texts import edge_text
from reports.writing.markdown import escape, table_of

EXPLAINED = (
    "Score here minus score there, in points, with the half-width of the 95 % interval of the paired difference on the same "
    "questions, clustered by image (Miller 2024, arXiv 2411.00640); ▲ higher and ▼ lower where the interval leaves out 0, ≈ "
    "elsewhere. A difference without an interval could not be paired: other questions, or answers that are gone. GFLOPs and "
    "time, of dense, are here over there."
)


def to_comparison(here: Leaderboard, there: Leaderboard) -> str:
    """Markdown: one section a table that both have. Raises FitPruneError if they have none in common."""
    parts = [
        _section(table, other, here.store, there.store)
        for table in _tables(here)
        for other in _counterparts(table, _tables(there))
    ]
    if not parts:
        raise FitPruneError(
            f"{here.store.folder} and {there.store.folder} have no model and data in common: nothing to compare"
        )
    title = f"# {escape(str(here.store.folder))} against {escape(str(there.store.folder))}"
    return "\n\n".join([title, escape(EXPLAINED), *parts]) + "\n"


def _counterparts(table: Table, others: list[Table]) -> list[Table]:
    """The tables of the same model and data; of these, if there are such, the ones with as many questions."""
    alike = [
        other for other in others if (table.model, table.data, table.sequential) == (other.model, other.data, other.sequential)
    ]
    return [other for other in alike if other.limit == table.limit] or alike


def _tables(board: Leaderboard) -> list[Table]:
    return [part.table for part in board.boards]


def _section(here: Table, there: Table, store: Store, other_store: Store) -> str:
    suites = [suite for suite in here.suites if suite in there.suites]
    others = {row.cell: row for row in there.rows}
    lines = []
    for ours, theirs in ((row, others[row.cell]) for row in here.rows if row.cell in others):
        edges = {suite: _edge(ours, theirs, suite, store, other_store) for suite in suites}
        both = {suite: edge for suite, edge in edges.items() if edge is not None}
        average = mean_edge(both, here.data) if both and len(both) == len(suites) else None
        ratios = [_ratio(ours.flops, theirs.flops), _ratio(ours.time_share, theirs.time_share)]
        lines.append([ours.name, *ratios, edge_text(average), *(edge_text(edge) for edge in edges.values())])
    columns = ["method", "GFLOPs", "time", "average", *map(suite_title, suites)]
    table = table_of(columns, [[escape(text) for text in line] for line in lines])
    notes = [note for note in (_weights(here, there), _only("here", here, there), _only("there", there, here)) if note]
    heading = heading_of(here) if here.limit == there.limit else f"{heading_of(here)}, against {heading_of(there)}"
    return "\n\n".join([f"## {escape(heading)}", table, *(["\n".join(f"- {escape(note)}" for note in notes)] if notes else [])])


def _edge(here: Row, there: Row, suite: str, store: Store, other_store: Store) -> Edge | None:
    """The paired difference where there is one, else the plain one without an interval."""
    ours, theirs = here.figure(suite), there.figure(suite)
    if ours is None or theirs is None:
        return None
    plain = Edge(ours.score - theirs.score, math.nan, math.nan)
    one, other = _result(here, suite), _result(there, suite)
    if one is None or other is None:
        return plain
    try:
        drop = paired_drop(store.read_both(one)[0], other_store.read_both(other)[0])
    except FitPruneError:
        return plain
    return Edge(drop.drop, drop.low, drop.high)


def _result(row: Row, suite: str) -> Result | None:
    """The row's own result: a dense row may stand on a pruned cell's record, whose answers are not its own."""
    result = row.results[suite]
    return result if result.cell.is_dense == row.is_dense else None


def _ratio(one: float, other: float) -> str:
    ratio = one / other if other else math.nan
    return "–" if math.isnan(ratio) else f"{number(ratio, '.2f')}×"


def _weights(here: Table, there: Table) -> str:
    return "" if here.revision == there.revision else f"other weights: {here.revision} here, {there.revision} there"


def _only(where: str, table: Table, other: Table) -> str:
    known = {row.cell for row in other.rows}
    names = [row.name for row in table.rows if row.cell not in known]
    return f"only {where}: {', '.join(names)}" if names else ""
