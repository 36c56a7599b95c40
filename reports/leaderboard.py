"""What a leaderboard says, before it is Markdown or HTML: tables of short texts, the best marked, and how they were
measured.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fitprune.errors import FitPruneError
from harness.cells import CellSettings
from harness.command import BATCH_SIZE, suites_command
from harness.store import Result, Store
from harness.suite_specs import SUITES
from harness.table import Figure, Row, Table, tables_of

MEASUREMENT = (
    "Scores are lmms-eval's own, in points of 0–100, with the half-width of their 95 % interval; in parentheses the drop, "
    "dense minus pruned on the same questions, with its own. Intervals are clustered by image, with Student's t at the "
    "number of images less one (Miller 2024, arXiv 2411.00640). The average is the unweighted mean over the suites shown.",
    "FLOPs are end to end for one question: vision tower, projector, prompt, the pruner's scoring and the tokens really "
    "generated; 1 multiply-accumulate = 2 FLOPs. Saved is the measured share of the visual tokens' decoder FLOPs, scoring paid "
    "for: the figure that methods are compared at.",
    "Prefill is the time of the dense model over that of the pruned one, measured in turn in the same process: median of "
    "repeats after warm-up.",
)


@dataclass(frozen=True)
class Text:
    """What stands in one place of the table."""

    text: str
    best: bool = False
    failed: bool = False


@dataclass
class Board:
    """One table: its heading, column names, lines of texts, the notes under it."""

    heading: str
    columns: list[str]
    lines: list[list[Text]]
    notes: list[str]
    command: str
    table: Table


@dataclass
class Leaderboard:
    """All tables of a results folder, and the files of it that could not be read."""

    boards: list[Board]
    damaged: list[str]
    store: Store


def read_leaderboard(folder: Path) -> Leaderboard:
    """The leaderboard of a results folder. Raises FitPruneError, in one line, if there is nothing to show."""
    if not folder.is_dir():
        raise FitPruneError(f"results folder {folder} does not exist")
    store = Store(folder)
    results, damaged = store.read_all()
    if not results:
        raise FitPruneError(
            f"no results in {folder}" + (f": {damaged[0]}" if damaged else "; pytest suites/ --results writes them")
        )
    return Leaderboard([_board(table) for table in tables_of(results, list(SUITES))], damaged, store)


def _board(table: Table) -> Board:
    titles = [SUITES[suite].title if suite in SUITES else suite for suite in table.suites]
    best = _best(table)
    lines = []
    for row in table.rows:
        figures = [row.average(table.suites), *(row.figure(suite) for suite in table.suites)]
        lines.append(
            [
                Text(row.name),
                Text(_number(row.flops / 1e9, ".3g")),
                Text(_number(row.flops_share, ".0%")),
                Text(_number(row.reduction, ".1%")),
                Text(_number(row.speedup, ".2f") + "×"),
                *(
                    Text(_figure(figure), (id(row), place) in best, figure is not None and figure.failed)
                    for place, figure in enumerate(figures)
                ),
            ]
        )
    return Board(
        heading=f"{table.model}, {table.data} data" + ("" if table.limit is None else f", {table.limit} questions a suite"),
        columns=["pruner", "GFLOPs", "of dense", "saved", "prefill", "average", *titles],
        lines=lines,
        notes=[*MEASUREMENT, *_circumstances(table.results)],
        command=_command(table),
        table=table,
    )


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
    return suites_command(
        ["suites/"] if whole else [f"suites/test_{suite}.py" for suite in table.suites],
        table.model,
        _each(result.pruner for result in results),
        settings,
        recipe=recipes[0] if len(recipes) == 1 and not settings.reductions else "",
        max_drop=max((result.max_drop for result in results if result.max_drop is not None), default=None),
    )


def _each(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    text = _plus_minus(figure.score, figure.half_width)
    if not math.isnan(figure.drop):
        text += f" ({_plus_minus(figure.drop, figure.drop_half_width)})"
    return text + (" ✗" if figure.failed else "")


def _plus_minus(value: float, half_width: float) -> str:
    return _number(value, ".1f") + ("" if math.isnan(half_width) else f" ± {half_width:.1f}")


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
