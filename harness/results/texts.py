"""Figures as texts, the same in the terminal, in Markdown and LaTeX, and on the page: they are rounded here alone."""

import math
import re
from collections.abc import Callable

from harness.results.table import ROUGH_MS, Figure, Row, Table

# Columns of every table beside the row's name and the suites, in their order.
COLUMNS = ("average", "worst suite", "saved", "time, of dense", "GFLOPs", "of dense")
AVERAGE, WORST, SAVED, TIME, FLOPS, SHARE = COLUMNS
ROUGHLY = f"~ a prefill below {ROUGH_MS:g} ms, or timed while several processes shared the machine: noise decides hundredths"


def number(value: float, form: str) -> str:
    """A formatted number, with a minus sign where it is below zero as shown; a dash for NaN."""
    if math.isnan(value):
        return "–"
    text = format(value, form)
    return text.replace("-", "−") if re.search("[1-9]", text) else text.removeprefix("-")


def plus_minus(value: float, half: float, least: float = -math.inf, most: float = math.inf) -> str:
    """`88.0 ± 1.0`, without the second where it is not known; where that would leave the possible, from `least` to `most`, the
    ends that are left: `99.8 [97.0, 100.0]`.
    """
    middle = number(value, ".1f")
    if math.isnan(half):
        return middle
    low, high = (round(value - half, 1), round(value + half, 1))
    if low < round(least, 1) or high > round(most, 1):
        return f"{middle} [{number(max(low, least), '.1f')}, {number(min(high, most), '.1f')}]"
    return f"{middle} ± {half:.1f}"


def drop_text(figure: Figure) -> str:
    """The drop with the half-width of its interval: `2.0 ± 0.5`. No score is below 0 or above 100."""
    dense = figure.score + figure.drop
    return plus_minus(figure.drop, figure.drop_half_width, dense - 100, dense)


def figure_text(figure: Figure | None) -> str:
    """`88.0 (2.0 ± 0.5) ✗`: the score, in parentheses the drop, and whether it is more than allowed; a dash for none."""
    if figure is None:
        return "–"
    dropped = "" if math.isnan(figure.drop) else f" ({drop_text(figure)})"
    return number(figure.score, ".1f") + dropped + (" ✗" if figure.failed else "")


def row_texts(row: Row, table: Table, title: Callable[[str], str]) -> dict[str, str]:
    """What stands in a row's columns, but for its name; a suite's column goes by the suite."""
    worst = row.worst(table.averaged)
    return {
        AVERAGE: figure_text(row.average(table.averaged)),
        WORST: "–" if worst is None else f"{title(worst[0])} {drop_text(worst[1])}",
        SAVED: number(row.reduction, ".1%"),
        TIME: ("~" if row.roughly_timed else "") + number(row.time_share, ".2f"),
        FLOPS: gflops(row.flops, table),
        SHARE: number(row.flops_share, ".0%"),
        **{suite: figure_text(row.figure(suite)) for suite in table.suites},
    }


def gflops(flops: float, table: Table) -> str:
    """Billions, with as many decimals as three digits of the table's dense model have."""
    dense = table.rows[0].flops / 1e9
    digits = 3 if not dense > 0 else max(0, 2 - math.floor(math.log10(dense)))
    return number(flops / 1e9, f".{digits}f")
