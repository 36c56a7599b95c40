"""What a leaderboard says, before it is Markdown, LaTeX or HTML: tables of short texts, the best marked, and how they were
measured.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fitprune.errors import FitPruneError
from harness.cells import AUTHORS, CellSettings
from harness.command import BATCH_SIZE, suites_command
from harness.refusals import Refusal, read_refusals, standing
from harness.store import Result, Store
from harness.suite_specs import SUITES
from harness.table import Figure, Row, Table, tables_of
from reports import pareto
from reports.points import AVERAGE, FLOPS, optimal_at, timed_on
from reports.published import PublishedTable, published
from reports.rivals import RIVALS, Edge, Evidence, evidence_of_all
from reports.texts import number, plus_minus

MEASUREMENT = (
    "Scores are lmms-eval's own, in points of 0–100, with the half-width of their 95 % interval; in parentheses the drop, "
    "dense minus pruned on the same questions, with its own. Intervals are clustered by image, with Student's t at the "
    "number of images less one (Miller 2024, arXiv 2411.00640), and wider where only a handful of images differ. The average "
    "is the unweighted mean over the suites shown.",
    "vs random, vs downsample: by how many points the average is above that of random pruning, of a smaller input image, at "
    "the same asked reduction, paired on the same questions; ▲ above and ▼ below where the 95 % interval leaves out 0, ≈ "
    "elsewhere. ʳ and ᵈ mark scores of single suites that are above them so. Each is a 95 % statement of its own.",
    pareto.RULE,
    "FLOPs are end to end for one question: vision tower, projector, prompt, the pruner's scoring and the tokens really "
    "generated; 1 multiply-accumulate = 2 FLOPs. Saved is the measured share of the visual tokens' decoder FLOPs, scoring paid "
    "for: the figure that methods are compared at.",
    "Prefill is the time of the dense model over that of the pruned one, measured in turn in the same process: median of "
    "repeats after warm-up.",
)
_ARROWS = {"beats": "▲ ", "loses": "▼ ", "even": "≈ ", "unknown": ""}
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
        optimal: the places of the Pareto-optimal rows, average against FLOPs.
    """

    heading: str
    columns: list[str]
    lines: list[list[Text]]
    notes: list[str]
    command: str
    table: Table
    evidence: list[Evidence]
    optimal: set[int]


@dataclass
class Leaderboard:
    """All tables of a results folder, what was published of their methods, and the files of it that could not be read."""

    boards: list[Board]
    published: PublishedTable
    damaged: list[str]
    store: Store


def read_leaderboard(folder: Path) -> Leaderboard:
    """The leaderboard of a results folder. Raises FitPruneError, in one line, if there is nothing to show."""
    if not folder.is_dir():
        raise FitPruneError(f"results folder {folder} does not exist")
    store = Store(folder)
    results, damaged = store.read_all()
    refusals, damaged_too = read_refusals(folder)
    damaged += damaged_too
    if not results:
        raise FitPruneError(
            f"no results in {folder}" + (f": {damaged[0]}" if damaged else "; pytest suites/ --results writes them")
        )
    refusals = standing(refusals, results)
    tables = tables_of(results, list(SUITES), refusals)
    damaged += _homeless(refusals, tables)
    methods = _each(row.cell.pruner for table in tables for row in table.rows)
    boards = [_board(table, *found) for table, found in zip(tables, evidence_of_all(tables, store), strict=True)]
    return Leaderboard(boards, published(methods), damaged, store)


def _homeless(refusals: list[Refusal], tables: list[Table]) -> list[str]:
    """Cells that could not run, of a model without any result, which has no table."""
    known = {(table.model, table.data, table.limit) for table in tables}
    alone = [refusal for refusal in refusals if (refusal.cell.model, refusal.data, refusal.limit) not in known]
    return _each(f"{refusal.cell.label()} cannot run, and its model has no result: {refusal.reason}" for refusal in alone)


def prefill_title(table: Table) -> str:
    """Head of the prefill column, which marks figures that say nothing about a GPU."""
    return "prefill (CPU)" if timed_on(table) == ["cpu"] else "prefill"


def suite_title(suite: str) -> str:
    """A suite's name as people write it."""
    return SUITES[suite].title if suite in SUITES else suite


def heading_of(table: Table) -> str:
    """What a table is about, in a line."""
    limit = "" if table.limit is None else f", {table.limit} questions a suite"
    return f"{table.model}, {table.data} data{limit}{', asked until decided' if table.sequential else ''}"


def _board(table: Table, evidence: list[Evidence], unread: list[str]) -> Board:
    optimal = optimal_at(table, AVERAGE, FLOPS)
    best = _best(table)
    lines = [_line(table, row, evidence[place], best, place in optimal) for place, row in enumerate(table.rows)]
    return Board(
        heading=heading_of(table),
        columns=[
            *("pruner", "GFLOPs", "of dense", "saved", prefill_title(table), "average"),
            *(f"vs {rival}" for rival in RIVALS),
            *map(suite_title, table.suites),
        ],
        lines=lines,
        notes=[*MEASUREMENT, *_latencies(table), *_circumstances(table.results), *_refusals(table), *unread],
        command=_command(table),
        table=table,
        evidence=evidence,
        optimal=optimal,
    )


def _line(table: Table, row: Row, evidence: Evidence, best: set[tuple[int, int]], optimal: bool) -> list[Text]:
    if not row.results:
        blanks = len(RIVALS) + len(table.suites)
        return [Text(row.name), *[Text("–")] * 4, Text(f"cannot: {refusal(row)}"), *[Text("–")] * blanks]
    figures = [row.average(table.suites), *(row.figure(suite) for suite in table.suites)]
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
    ]


def _suite_text(row: Row, suite: str, evidence: Evidence) -> str:
    if suite in row.refused and suite not in row.results:
        return "cannot"
    marks = [mark for rival, mark in _MARKS.items() if _verdict(evidence.edges.get(rival, {}).get(suite)) == "beats"]
    return " ".join(part for part in (figure_text(row.figure(suite)), "".join(marks)) if part)


def _rival_text(row: Row, evidence: Evidence, rival: str, table: Table) -> str:
    if nobody := evidence.against[rival]:
        return nobody
    return edge_text(evidence.average(rival, table.suites))


def edge_text(edge: Edge | None) -> str:
    """`▲ 3.1 ± 1.2`; a dash where there is no edge."""
    if edge is None:
        return "–"
    return _ARROWS[edge.verdict] + plus_minus(edge.points, (edge.high - edge.low) / 2)


def _verdict(edge: Edge | None) -> str:
    return "" if edge is None else edge.verdict


def refusal(row: Row) -> str:
    """Why a row could not run, in one line; several reasons name their suites."""
    reasons = _each(row.refused.values())
    if len(reasons) == 1:
        return reasons[0]
    return "; ".join(f"{suite_title(suite)}: {reason}" for suite, reason in row.refused.items())


def _refusals(table: Table) -> list[str]:
    """The reasons of rows that could run on some suites only; the others' stand in their rows."""
    partial = [row for row in table.rows if row.results and row.refused.keys() - row.results.keys()]
    return [f"{row.name} cannot run on every suite: {refusal(row)}" for row in partial]


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
    return row.average(table.suites) if place == 0 else row.figure(table.suites[place - 1])


def _latencies(table: Table) -> list[str]:
    """What the prefill times were taken on, and what disturbed them."""
    on = timed_on(table)
    told = (
        [f"Prefill was timed on {', '.join(on)}" + ("; it says nothing about a GPU." if on == ["cpu"] else ".")] if on else []
    )
    notes = [(result.latency_ms or {}).get("notes") for result in table.results]
    return told + _each(f"Times: {text}" for own in notes if isinstance(own, list) for text in own)


def _circumstances(results: Iterable[Result]) -> list[str]:
    """Where and with what the figures were measured, and what the results themselves note."""
    results = list(results)
    sizes = sorted({result.n for result in results})
    versions = _each(f"{name} {version}" for result in results for name, version in result.versions.items())
    notes = [
        f"{sizes[0]} questions a suite." if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} questions a suite.",
        f"Weights {', '.join(_each(result.revision for result in results))}; "
        f"device {', '.join(_each(result.device for result in results))}; "
        f"{', '.join(versions)}; seed {', '.join(_each(str(result.seed) for result in results))}; "
        f"{min(result.date for result in results)[:10]} to {max(result.date for result in results)[:10]}.",
    ]
    if (processes := max((result.latency_ms or {}).get("processes") or 1 for result in results)) > 1:
        notes.append(f"Times were taken while up to {processes} processes shared the machine.")
    if any(result.verdict == "fail" for result in results):
        drops = ", ".join(_each(f"{result.max_drop:g}" for result in results if result.max_drop is not None))
        notes.append(f"✗: the drop is above the allowed {drops} points with 95 % confidence.")
    return notes + _each(note for result in results if result.note for note in result.note.split("; "))


def _command(table: Table) -> str:
    """One command for the whole table; each result's file holds that of its own cell."""
    results = table.results
    whole = set(table.suites) >= set(SUITES)
    settings = CellSettings(
        data=table.data,
        limit=table.limit,
        batch_size=max(result.generation.get("batch_size") or BATCH_SIZE for result in results),
        seed=results[0].seed,
        reductions=tuple(sorted({result.reduction_asked for result in results if result.reduction_asked is not None})),
    )
    recipes = _each(result.recipe for result in results if result.recipe)
    choices = _each(result.positions_asked or AUTHORS for result in results if not result.cell.is_dense)
    return suites_command(
        ["suites/"] if whole else [f"suites/test_{suite}.py" for suite in table.suites],
        table.model,
        _each(result.pruner for result in results),
        settings,
        recipe=recipes[0] if len(recipes) == 1 and not settings.reductions else "",
        positions=choices if choices != [AUTHORS] else (),
        max_drop=max((result.max_drop for result in results if result.max_drop is not None), default=None),
        gate="sequential" if table.sequential else "",
    )


def _each(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def figure_text(figure: Figure | None) -> str:
    """`88.0 ± 1.0 (2.0 ± 0.5) ✗`: score, drop, each with its half-width; a dash for none."""
    if figure is None:
        return "–"
    text = plus_minus(figure.score, figure.half_width)
    if not math.isnan(figure.drop):
        text += f" ({plus_minus(figure.drop, figure.drop_half_width)})"
    return text + (" ✗" if figure.failed else "")
