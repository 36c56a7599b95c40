"""Tables of one model's seeds, averaged: what holds on all of them, and how far they lie apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.models.registry import MODELS
from harness.results.table import Figure, Row, Table
from harness.results.texts import number
from reports.table.leaderboard import Board
from reports.table.rivals import Edge
from reports.table.texts import edge_text

COLUMNS = ("method", "average", "within one", "between seeds", "drop", "vs random")
NOTES = (
    "Scores are means over models that are seeds of one. 'Within one' is the widest half-width of their 95 "
    "% intervals over images; 'between seeds' are the lowest and the highest of their averages.",
    "▲ ▼ ≈ where all seeds say so with 95 % confidence each; where they do not, how many of them say what.",
)


@dataclass(frozen=True)
class SeedTable:
    """The mean over the tables of one model's seeds."""

    heading: str
    lines: list[list[str]]
    columns: tuple[str, ...] = COLUMNS
    notes: tuple[str, ...] = NOTES


def seed_tables(boards: Sequence[Board]) -> list[SeedTable]:
    """One for every model of which at least two seeds have a table of the same suites, data and questions."""
    groups: dict[tuple[object, ...], list[Board]] = {}
    for board in sorted(boards, key=lambda board: board.table.model):
        groups.setdefault(alike(board.table), []).append(board)
    return [_averaged(group) for group in groups.values() if len({board.table.model for board in group}) == len(group) > 1]


def alike(table: Table) -> tuple[object, ...]:
    """What tables of several seeds of one model agree in."""
    spec = MODELS.get(table.model)
    model = table.model if spec is None else spec.seed_of or table.model
    return model, table.data, table.limit, tuple(table.suites), table.sequential, table.apart


def _averaged(boards: Sequence[Board]) -> SeedTable:
    """Over the rows that every seed has on every suite."""
    places = [{row.name: place for place, row in enumerate(board.table.rows)} for board in boards]
    lines = []
    for name in places[0]:
        if all(name in names for names in places):
            rows = [board.table.rows[names[name]] for board, names in zip(boards, places, strict=True)]
            figures = [row.average(board.table.averaged) for board, row in zip(boards, rows, strict=True)]
            found = [figure for figure in figures if figure is not None]
            edges = [
                board.evidence[names[name]].average("random", board.table) for board, names in zip(boards, places, strict=True)
            ]
            if len(found) == len(boards):
                lines.append(_line(rows[0], found, [edge for edge in edges if edge is not None]))
    return SeedTable(f"{', '.join(board.table.model for board in boards)}: the mean over seeds", lines)


def _line(row: Row, figures: Sequence[Figure], edges: Sequence[Edge]) -> list[str]:
    scores = [figure.score for figure in figures]
    drop = "–" if row.is_dense else number(fmean([figure.drop for figure in figures]), ".1f")
    within = number(max(figure.half_width for figure in figures), ".1f")
    between = f"{number(min(scores), '.1f')} … {number(max(scores), '.1f')}"
    against = _against(edges) if len(edges) == len(figures) else "–"
    return [row.name, number(fmean(scores), ".1f"), f"± {within}" if within != "–" else within, between, drop, against]


def _against(edges: Sequence[Edge]) -> str:
    """`▲ 3.1 ± 1.2`, the widest interval; where the seeds differ, `2.0: ▲ on 2, ≈ on 1`."""
    points, verdicts = fmean([edge.points for edge in edges]), [edge.verdict for edge in edges]
    widest = max(edges, key=lambda edge: edge.high - edge.low)
    half = (widest.high - widest.low) / 2
    if len(set(verdicts)) == 1:
        return f"{edge_text(edges[0])[:2]}{number(points, '.1f')} ± {number(half, '.1f')}"
    said = (f"{edge_text(edges[verdicts.index(each)])[0]} on {verdicts.count(each)}" for each in dict.fromkeys(verdicts))
    return f"{number(points, '.1f')}: {', '.join(said)}"
