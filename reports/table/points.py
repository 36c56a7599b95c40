"""The points of the trade-off charts: what a row scores, on one suite or on average, against what it costs; and which of them
no other one dominates.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from harness.results.result import Result
from harness.results.table import Figure, Row, Table
from harness.results.texts import AVERAGE

PARETO = (
    "◆ marks Pareto-optimal rows: no other row of the table, the dense one included, scores at least as high on average for at "
    "most as many end-to-end GFLOPs, with one of the two better. Scores are compared as shown, whatever their intervals; costs "
    "within 1 % are equal."
)
SLACK = 1.01


@dataclass(frozen=True)
class Axis:
    """A cost. `of` reads it from a result of the row, dense or pruned; `has_spread`: it has quartiles."""

    name: str
    title: str
    of: Callable[[Row, Result], float]
    has_spread: bool = False


def _flops(row: Row, result: Result) -> float:
    flops = result.dense_flops if row.is_dense else result.flops
    return math.nan if flops is None else flops / 1e9


def _latency(row: Row, result: Result, key: str = "prefill_ratio") -> float:
    if row.is_dense:
        return 1.0
    return _finite((result.latency_ms or {}).get(key))


FLOPS = Axis("flops", "GFLOPs of a question, end to end", _flops)
LATENCY = Axis("latency", "Prefill time, of the dense model's (median and quartiles)", _latency, has_spread=True)
AXES = (FLOPS, LATENCY)


def places_of(table: Table) -> list[str]:
    """What a chart may show of a table: the average, then each suite."""
    return [AVERAGE, *table.suites] if len(table.suites) > 1 else list(table.suites)


def figure_at(row: Row, table: Table, place: str) -> Figure | None:
    """The row's figure on a suite, or averaged over all of them."""
    return row.average(table.averaged) if place == AVERAGE else row.figure(place)


def cost_at(row: Row, table: Table, place: str, axis: Axis) -> float:
    """The row's cost on a suite, or its mean over all of them."""
    return _mean([axis.of(row, row.results[suite]) for suite in _suites(row, table, place)])


def optimal_at(table: Table, place: str, axis: Axis) -> set[int]:
    """The places of the rows that are Pareto-optimal there."""
    points = []
    for row in table.rows:
        figure = figure_at(row, table, place)
        points.append((cost_at(row, table, place, axis), math.nan if figure is None else figure.score))
    return frontier(points)


def frontier(points: Sequence[tuple[float, float]]) -> set[int]:
    """The places of the Pareto-optimal (cost, score) points: cost low, score high, to a tenth of a point. A point without one
    of the two takes no part; equal points are all in.
    """
    known = sorted((cost, round(score, 1), place) for place, (cost, score) in enumerate(points) if math.isfinite(cost + score))
    costs = [cost for cost, _, _ in known]
    best = [-math.inf, *accumulate((score for _, score, _ in known), max)]  # of the cheapest so many points

    def is_optimal(cost: float, score: float) -> bool:
        no_dearer, cheaper = bisect_right(costs, cost * SLACK), bisect_left(costs, cost / SLACK)
        return best[no_dearer] <= score and best[cheaper] < score

    return {place for cost, score, place in known if is_optimal(cost, score)}


def spread_at(row: Row, table: Table, place: str) -> tuple[float, float]:
    """The quartiles of the relative prefill time, as `cost_at` takes their middle."""
    suites = _suites(row, table, place)
    low, high = (_mean([_latency(row, row.results[suite], f"prefill_ratio_{end}") for suite in suites]) for end in ("q1", "q3"))
    return low, high


def points_of(table: Table, place: str, axis: Axis, named: Sequence[str]) -> list[dict[str, Any]]:
    """The points of a chart, as its marks read them; `named` are the methods that it names."""
    optimal = optimal_at(table, place, axis)
    points = []
    for at, row in enumerate(table.rows):
        figure, cost = figure_at(row, table, place), cost_at(row, table, place, axis)
        if figure is not None and math.isfinite(cost) and math.isfinite(figure.score):
            half, (first, third) = _finite(figure.half_width), spread_at(row, table, place)
            points.append(
                {
                    "method": row.cell.pruner,
                    "ids": row.cell.positions,
                    "name": row.name,
                    "x": cost,
                    "from": first if math.isfinite(first) else cost,
                    "to": third if math.isfinite(third) else cost,
                    "score": figure.score,
                    "low": figure.score if math.isnan(half) else max(figure.score - half, 0.0),
                    "high": figure.score if math.isnan(half) else min(figure.score + half, 100.0),
                    "optimal": at in optimal,
                    "named": row.cell.pruner in named,
                }
            )
    return points


def _suites(row: Row, table: Table, place: str) -> list[str]:
    return [suite for suite in (table.suites if place == AVERAGE else [place]) if suite in row.results]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan
