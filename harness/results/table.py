"""From results to table rows: one per model, pruner and reduction, the suites beside each other, the dense model on top."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.cells import DENSE, Cell, recipe_name
from harness.results.averages import Averages, Together
from harness.results.refusals import Refusal
from harness.results.result import Result
from harness.results.store import Store
from harness.statistics import Verdict, average_half_width

ROUGH_MS = 10.0


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
    for suites where it gave no result, the reason.
    """

    cell: Cell
    results: dict[str, Result]
    is_dense: bool = False
    refused: dict[str, Refusal] = field(default_factory=dict)
    averages: Averages = field(default_factory=Averages, compare=False, repr=False)

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

        An image is one draw, in however many of the suites it is: see `statistics.correlations`.
        """
        figures = self._figures(suites)
        if not figures or len(figures) < len(suites):
            return None
        together = self.together(suites)

        def mean(read: Callable[[Figure], float]) -> float:
            return sum(map(read, figures)) / len(figures)

        return Figure(
            mean(lambda f: f.score),
            average_half_width([f.half_width for f in figures], together.scores),
            mean(lambda f: f.drop),
            average_half_width([f.drop_half_width for f in figures], together.drops),
        )

    def worst(self, suites: Sequence[str]) -> tuple[str, Figure] | None:
        """The suite of the largest drop, and the figure there; None for the dense row, and where one of `suites` is missing."""
        found = dict(zip(suites, self._figures(suites), strict=False))
        if self.is_dense or len(found) < len(suites):
            return None
        return max(found.items(), key=lambda entry: entry[1].drop, default=None)

    def mean(self, suites: Sequence[str]) -> float:
        """The score of `average`, which reads no answers; NaN where there is none."""
        figures = self._figures(suites)
        return sum(figure.score for figure in figures) / len(figures) if 0 < len(figures) == len(suites) else math.nan

    def _figures(self, suites: Sequence[str]) -> list[Figure]:
        return [figure for suite in suites if (figure := self.figure(suite)) is not None]

    def together(self, suites: Sequence[str]) -> Together:
        """What the suites, all of which were run, have in common."""
        return self.averages.of({suite: self.results[suite] for suite in suites})

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
    def time_share(self) -> float:
        """Prefill time as a share of the dense model's, measured in turn; NaN without a measurement."""
        return 1.0 if self.is_dense else _mean(times.get("prefill_ratio") for times in self._times())

    @property
    def roughly_timed(self) -> bool:
        """Whether a prefill took less than ROUGH_MS, or several processes shared the machine: then noise decides hundredths."""
        times = [] if self.is_dense else self._times()
        shortest = min((each.get("prefill") or math.inf for each in times), default=math.inf)
        return shortest < ROUGH_MS or any((each.get("processes") or 1) > 1 for each in times)

    def _times(self) -> list[dict[str, Any]]:
        return [result.latency_ms or {} for result in self.results.values()]


@dataclass
class Table:
    """The rows that may be compared: one model's weights on the same data, on one device in one precision.

    Attributes:
        suites: those that were run, also where no cell of one gave a result.
        sequential: whether every cell asked only what it took to decide its gate.
        apart: what sets it apart from other tables of the same model and data; empty where there is none.
    """

    model: str
    revision: str
    data: str
    limit: int | None
    suites: list[str]
    rows: list[Row]
    sequential: bool = False
    apart: str = ""

    @property
    def averaged(self) -> list[str]:
        """The suites that an average is of: those with a result."""
        return [suite for suite in self.suites if any(suite in row.results for row in self.rows)]

    @property
    def timed_on(self) -> list[str]:
        """What the latencies were taken on: names of GPUs, or "cpu"; empty if there are none."""
        timed = [result for result in self.results if result.latency_ms]
        return sorted({str((result.latency_ms or {}).get("on") or result.device) for result in timed})

    @property
    def average_title(self) -> str:
        """`average`, or `average of 5/6` where a suite has no result."""
        whole = len(self.averaged) == len(self.suites)
        return "average" if whole else f"average of {len(self.averaged)}/{len(self.suites)}"

    def average_notes(self, title: Callable[[str], str] = str) -> list[str]:
        """What an average is of, where that is not all suites; and which suites share images."""
        missing = [title(suite) for suite in self.suites if suite not in self.averaged]
        notes = [f"The average leaves out {', '.join(missing)}: no cell there gave a result."] if missing else []
        whole = next((row for row in self.rows if self.averaged and all(suite in row.results for suite in self.averaged)), None)
        if whole is not None:
            together = whole.together(self.averaged)
            sharing, unproven = (", ".join(map(title, suites)) for suites in (together.sharing, together.unproven))
            if sharing:
                notes.append(f"{sharing} ask about the same images: the average's interval takes each image as one draw.")
            if unproven:
                notes.append(
                    f"{unproven} ask about images of one collection, and their answers do not show which are the same: "
                    "their half-widths are added up in the average's, the most that they can come to."
                )
        return notes

    @property
    def results(self) -> list[Result]:
        """All results in the table, in row order."""
        return [result for row in self.rows for result in row.results.values()]


def tables_of(
    results: Iterable[Result],
    suite_order: Sequence[str] = (),
    refusals: Iterable[Refusal] = (),
    suites: Iterable[str] = (),
    store: Store | None = None,
) -> list[Table]:
    """One table per model, revision, weights, data, limit, device and precision, in order of first appearance. Of two results
    for one place the newer counts. Where a suite's data changed, so that its digest is another, or videos were shown by other
    numbers of frames, older results are tables of their own.

    Rows: dense first (from a pruned cell's record of it, if dense was not a cell of its own), then by reduction, then by the
    average, the highest first; those without one last. Suites in `suite_order`, others after them by name; of `suites`, and of
    refusals, also those without a result. Cells that gave none stand in every table of their model, data and limit;
    one of a model without a single result stands in none.

    store: where the results' answers are, whose images averages ask for.
    """
    refusals, suites, averages = list(refusals), list(suites), Averages(store)
    groups: dict[tuple[Any, ...], dict[tuple[Cell, str], Result]] = {}
    ordered = sorted(results, key=lambda result: result.date)
    editions = _editions(ordered)
    for result in ordered:
        edition = editions[_circumstances(result), result.suite].index(_edition(result))
        groups.setdefault((*_circumstances(result), edition), {})[result.cell.anywhere, result.suite] = result
    tables = []
    for (*key, _), places in groups.items():
        model, revision, _, data, limit, sequential, *_ = key
        own = [refusal for refusal in refusals if (refusal.cell.model, refusal.data, refusal.limit) == (model, data, limit)]
        made = list(places.values())
        tables.append(Table(model, revision, data, limit, *_rows(made, suite_order, own, suites), sequential))
    for table in tables:
        for row in table.rows:
            row.averages = averages
        table.rows[1:] = sorted(table.rows[1:], key=lambda row: _order(row, table.averaged))
        alike = [other for other in tables if _heading(other) == _heading(table)]
        table.apart = _apart(table) if len(alike) > 1 else ""
    return tables


def _circumstances(result: Result) -> tuple[Any, ...]:
    """What results in one table share."""
    precision = result.generation.get("dtype", "")
    what = (result.model, result.revision, result.weights, result.data, result.limit, bool(result.sequential))
    return (*what, result.device, precision)


def _editions(results: Iterable[Result]) -> dict[tuple[Any, ...], list[str]]:
    """Of results from old to new, what a suite asked under each circumstances, the newest first."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for result in results:
        editions, own = found.setdefault((_circumstances(result), result.suite), []), _edition(result)
        editions[:] = [own, *(edition for edition in editions if edition != own)]
    return found


def _edition(result: Result) -> str:
    """What a suite asked: its data, and of videos the number of frames."""
    return f"{result.data_digest} {result.generation.get('frames', '')}"


def _heading(table: Table) -> tuple[Any, ...]:
    return table.model, table.data, table.limit, table.sequential


def _apart(table: Table) -> str:
    """`revision abc, device cpu, precision float32, data of 1f0c9b2a`."""
    results = table.results
    first = results[0]
    said = {
        "revision": table.revision[:12],
        "weights": first.weights[:8],
        "device": first.device,
        "precision": first.generation.get("dtype", ""),
        "frames": " ".join(dict.fromkeys(str(frames) for each in results if (frames := each.generation.get("frames")))),
        "data of": " ".join(dict.fromkeys(result.data_digest[:8] for result in results)),
    }
    return ", ".join(f"{name} {value}" for name, value in said.items() if value)


def _rows(
    results: list[Result], suite_order: Sequence[str], refusals: list[Refusal], more: Iterable[str]
) -> tuple[list[str], list[Row]]:
    rank = {suite: place for place, suite in enumerate(suite_order)}
    there = {result.suite for result in results} | {refusal.cell.suite for refusal in refusals} | set(more)
    suites = sorted(there, key=lambda suite: (rank.get(suite, len(rank)), suite))
    rows: dict[Cell, Row] = {}
    dense = Row(Cell(results[0].model, DENSE, None, ""), {}, is_dense=True)
    for result in sorted(results, key=lambda result: suites.index(result.suite)):
        if result.suite not in dense.results or result.cell.is_dense:
            dense.results[result.suite] = result
        if not result.cell.is_dense:
            place = result.cell.anywhere
            rows.setdefault(place, Row(place, {})).results[result.suite] = result
    for refusal in refusals:
        place = refusal.cell.anywhere
        row = dense if refusal.cell.is_dense else rows.setdefault(place, Row(place, {}))
        row.refused[refusal.cell.suite] = refusal
    return suites, [dense, *rows.values()]


def _order(row: Row, suites: Sequence[str]) -> tuple[Any, ...]:
    """Of a row by a recipe the reduction is the measured one."""
    reduction = row.reduction if row.cell.reduction is None else row.cell.reduction
    mean = row.mean(suites)
    return reduction, -mean if math.isfinite(mean) else math.inf, row.name


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
