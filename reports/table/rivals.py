"""What the answers of a table say beyond its scores: does a row beat random pruning, and downsampling, at the same asked
reduction, and which questions did pruning lose?

Answers are read file by file, and let go again: at any moment those of one row and of its rivals on one suite are in memory.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from fitprune.errors import FitPruneError
from harness.answers import Answers
from harness.results.result import Result
from harness.results.store import Store
from harness.results.table import Row, Table
from harness.statistics import Influence, average_half_width, correlations, paired_drop

RIVALS = ("random", "downsample")
MANY = 1000  # results from which on several processes read their answers
LOST_SHOWN = 5  # questions kept of those that a row lost on a suite


@dataclass(frozen=True)
class Edge:
    """Points by which a row scores above another on the same questions, with the 95 % interval of the paired difference, and
    how much each image moves them.
    """

    points: float
    low: float
    high: float
    influence: Influence | None = field(default=None, compare=False, repr=False)

    @property
    def verdict(self) -> str:
        """`beats` or `loses` where the interval leaves out 0, else `even`; `unknown` without an interval."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return "unknown"
        return "beats" if self.low > 0 else "loses" if self.high < 0 else "even"


@dataclass(frozen=True)
class Lost:
    """A row's questions that the dense model answered better on a suite: how many, and the first of them."""

    count: int
    answers: list[dict[str, Any]]


@dataclass
class Evidence:
    """What the answers of one row say.

    Attributes:
        edges: rival → suite → by how much the row beats it.
        lost: suite → the questions that pruning lost.
        against: rival → why there is nothing to compare with; empty where there is.
    """

    edges: dict[str, dict[str, Edge]] = field(default_factory=dict)
    lost: dict[str, Lost] = field(default_factory=dict)
    against: dict[str, str] = field(default_factory=dict)

    def average(self, rival: str, table: Table) -> Edge | None:
        """The edge averaged over all suites that the table's average is of; None if one of them is missing."""
        edges, suites = self.edges.get(rival, {}), table.averaged
        if not suites or not all(suite in edges for suite in suites):
            return None
        return mean_edge({suite: edges[suite] for suite in suites}, table.data)


def mean_edge(edges: Mapping[str, Edge], data: str) -> Edge:
    """The unweighted mean of the suites' edges; each side of its interval by `average_half_width`."""
    points = sum(edge.points for edge in edges.values()) / len(edges)
    correlation = correlations({suite: edge.influence for suite, edge in edges.items()}, data)
    below = average_half_width([edge.points - edge.low for edge in edges.values()], correlation)
    above = average_half_width([edge.high - edge.points for edge in edges.values()], correlation)
    return Edge(points, points - below, points + above)


def evidence_of_all(tables: Sequence[Table], store: Store, processes: int) -> list[tuple[list[Evidence], list[str]]]:
    """`evidence_of` each table: in several processes where they may be, and there is much to read."""
    workers = min(processes, len(tables))
    if workers < 2 or sum(len(table.results) for table in tables) < MANY:
        return [evidence_of(table, store) for table in tables]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(evidence_of, tables, [store] * len(tables)))


def evidence_of(table: Table, store: Store) -> tuple[list[Evidence], list[str]]:
    """One `Evidence` per row of the table, in its order, and a note if answers could not be read."""
    found = [Evidence() for _ in table.rows]
    unread: list[str] = []
    # A rival as its authors have it; rows with other position ids are compared with that one too.
    plain = [row for row in table.rows if row.cell.pruner in RIVALS and not row.cell.positions]
    rivals = {(row.cell.pruner, row.cell.reduction): row for row in plain}
    for row, evidence in zip(table.rows, found, strict=True):
        evidence.against = {rival: _nobody(row, rival, rivals) for rival in RIVALS}
    for suite in table.suites:
        theirs = {place: _read(store, row.results.get(suite), unread)[0] for place, row in rivals.items()}
        for row, evidence in zip(table.rows, found, strict=True):
            if not row.is_dense:
                _add(evidence, row, suite, theirs, store, unread)
    return found, not_compared(list(dict.fromkeys(unread)))


def not_compared(unread: Sequence[str]) -> list[str]:
    """A note with the first of the reasons why answers could not be compared, and how many more there are; none without any."""
    rest = f" (and {len(unread) - 1} more)" if len(unread) > 1 else ""
    return [f"not compared: {unread[0]}{rest}"] if unread else []


def _add(
    evidence: Evidence,
    row: Row,
    suite: str,
    rivals: dict[tuple[str, float | None], Answers | None],
    store: Store,
    unread: list[str],
) -> None:
    own, evidence.lost[suite] = _read(store, row.results.get(suite), unread)
    for rival, nobody in evidence.against.items():
        theirs = rivals.get((rival, row.cell.reduction))
        if not nobody and own is not None and theirs is not None:
            try:
                drop = paired_drop(own, theirs)
            except FitPruneError as error:
                unread.append(f"{row.name} and {rival} on {suite}: {error}")
                continue
            evidence.edges.setdefault(rival, {})[suite] = Edge(drop.drop, drop.low, drop.high, drop.influence)


def _nobody(row: Row, rival: str, rivals: dict[tuple[str, float | None], Row]) -> str:
    """Why a row cannot be compared with a rival; empty if it can."""
    if row.is_dense or row.cell.pruner == rival or row.cell.reduction is None:
        return "–"
    other = rivals.get((rival, row.cell.reduction))
    if other is None:
        return "not run"
    return "" if other.results else next(iter(other.refused.values())).kind


def _read(store: Store, result: Result | None, unread: list[str]) -> tuple[Answers | None, Lost]:
    if result is None:
        return None, Lost(0, [])
    try:
        records = store.read_answers(result)
        return result.both(records)[0], _lost(records)
    except FitPruneError as error:
        unread.append(str(error))
        return None, Lost(0, [])


def _lost(records: Iterable[dict[str, Any]]) -> Lost:
    worse = [record for record in records if (record.get("dense_score") or 0) > (record.get("score") or 0)]
    return Lost(len(worse), worse[:LOST_SHOWN])
