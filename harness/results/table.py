"""From results to table rows: one per model, pruner and reduction, the suites beside each other, the dense model on top."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from harness.cells import DENSE, Cell, recipe_name
from harness.results.refusals import Refusal
from harness.results.result import Result
from harness.statistics import Verdict


@dataclass(frozen=True)
class Figure:
    """A score in points and its drop against dense, each with the half-width of its 95 % interval; NaN for what is
    not known.
    """

    score: float
    half_width: float = math.nan
    drop: float = math.nan
    drop_half_width: float = math.nan
    failed: bool = False


@dataclass
class Row:
    """A model under a pruner at a reduction (`cell`, without its suite), over the suites that were run; `refused` gives,
    for suites where it could not run, the reason.
    """

    cell: Cell
    results: dict[str, Result]
    is_dense: bool = False
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`fitprune 0.5`, or a recipe's name in place of the reduction."""
        asked = "" if self.cell.reduction is None else f"{self.cell.reduction:g}"
        ids = self.cell.positions and f"ids {self.cell.positions}"
        return " ".join(part for part in (self.cell.pruner, asked, recipe_name(self.cell.recipe), ids) if part)

    def figure(self, suite: str) -> Figure | None:
        """The row's figure on a suite; None where it was not run."""
        result = self.results.get(suite)
        if result is None:
            return None
        if not self.is_dense:
            return Figure(
                result.score, _half(result.score_ci95), result.drop, _half(result.drop_ci95), result.verdict == Verdict.FAIL
            )
        # The dense row may stand on a pruned cell's record of what the dense model gave.
        return Figure(result.dense_score, _half(result.score_ci95) if result.cell.is_dense else math.nan)

    def average(self, suites: Sequence[str]) -> Figure | None:
        """The unweighted mean over all of `suites`; None if one of them is missing, since means over different
        suites cannot be compared.

        Errors are taken as independent. Suites whose images come from one collection, as POPE's and VQAv2's from COCO, make
        the half-width a little too small.
        """
        figures = [figure for suite in suites if (figure := self.figure(suite)) is not None]
        if not figures or len(figures) < len(suites):
            return None

        def mean(read: Callable[[Figure], float]) -> float:
            return sum(map(read, figures)) / len(figures)

        def combined(read: Callable[[Figure], float]) -> float:
            return math.sqrt(sum(read(figure) ** 2 for figure in figures)) / len(figures)

        return Figure(
            mean(lambda f: f.score),
            combined(lambda f: f.half_width),
            mean(lambda f: f.drop),
            combined(lambda f: f.drop_half_width),
        )

    @property
    def flops(self) -> float:
        """End-to-end FLOPs of a question, mean over suites; NaN if they were not counted."""
        return _mean((result.dense_flops if self.is_dense else result.flops) for result in self.results.values())

    @property
    def flops_share(self) -> float:
        """`flops` as a share of the dense model's on the same suites."""
        return 1.0 if self.is_dense else self.flops / _mean(result.dense_flops for result in self.results.values())

    @property
    def reduction(self) -> float:
        """Measured share of the visual tokens' FLOPs saved, mean over suites."""
        return 0.0 if self.is_dense else _mean(result.reduction for result in self.results.values())

    @property
    def speedup(self) -> float:
        """Prefill time of the dense model over this one's, measured in turn; NaN without a measurement."""
        if self.is_dense:
            return 1.0
        ratios = [(result.latency_ms or {}).get("prefill_ratio") for result in self.results.values()]
        return 1 / _mean(ratios)


@dataclass
class Table:
    """The rows that may be compared: one model's weights on the same data.

    Attributes:
        sequential: whether every cell asked only what it took to decide its gate.
    """

    model: str
    revision: str
    data: str
    limit: int | None
    suites: list[str]
    rows: list[Row]
    sequential: bool = False

    @property
    def results(self) -> list[Result]:
        """All results in the table, in row order."""
        return [result for row in self.rows for result in row.results.values()]


def tables_of(results: Iterable[Result], suite_order: Sequence[str] = (), refusals: Iterable[Refusal] = ()) -> list[Table]:
    """One table per model, revision, data and limit, in order of first appearance. Of two results for one place the
    newer counts.

    Rows: dense first (from a pruned cell's record of it, if dense was not a cell of its own), then by pruner in
    order of appearance, then by reduction. Suites in `suite_order`, others after them by name. Cells that could not run
    stand in every table of their model, data and limit; one of a model without a single result stands in none.
    """
    refusals = list(refusals)
    groups: dict[tuple[str, str, str, int | None, bool], dict[tuple[Cell, str], Result]] = {}
    for result in sorted(results, key=lambda result: result.date):
        key = (result.model, result.revision, result.data, result.limit, bool(result.sequential))
        group = groups.setdefault(key, {})
        group[_place(result.cell), result.suite] = result
    tables = []
    for (model, revision, data, limit, sequential), places in groups.items():
        own = [refusal for refusal in refusals if (refusal.cell.model, refusal.data, refusal.limit) == (model, data, limit)]
        tables.append(Table(model, revision, data, limit, *_rows(list(places.values()), suite_order, own), sequential))
    return tables


def _rows(results: list[Result], suite_order: Sequence[str], refusals: list[Refusal]) -> tuple[list[str], list[Row]]:
    rank = {suite: place for place, suite in enumerate(suite_order)}
    suites = sorted({result.suite for result in results}, key=lambda suite: (rank.get(suite, len(rank)), suite))
    pruners = list(dict.fromkeys([result.pruner for result in results] + [refusal.cell.pruner for refusal in refusals]))
    rows: dict[Cell, Row] = {}
    dense = Row(Cell(results[0].model, DENSE, None, ""), {}, is_dense=True)
    for result in sorted(results, key=lambda result: suites.index(result.suite)):
        if result.suite not in dense.results or result.cell.is_dense:
            dense.results[result.suite] = result
        if not result.cell.is_dense:
            place = _place(result.cell)
            rows.setdefault(place, Row(place, {})).results[result.suite] = result
    for refusal in refusals:
        place = _place(refusal.cell)
        rows.setdefault(place, Row(place, {})).refused[refusal.cell.suite] = refusal.reason

    def place_of(row: Row) -> tuple[int, str, float, str]:
        cell = row.cell
        return pruners.index(cell.pruner), cell.positions, cell.reduction or 0, cell.recipe

    ordered = sorted(rows.values(), key=place_of)
    return suites, [dense, *ordered]


def _place(cell: Cell) -> Cell:
    return dataclasses.replace(cell, suite="")


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
