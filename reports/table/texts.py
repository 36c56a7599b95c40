"""Short texts of figures: scores and drops with their half-widths, edges, the reasons of a refusal, titles of suites."""

import math
from collections.abc import Iterable

from harness.results.table import Figure, Row
from harness.tasks.specs import SUITES
from reports.table.rivals import Edge

_ARROWS = {"beats": "▲ ", "loses": "▼ ", "even": "≈ ", "unknown": ""}


def plus_minus(value: float, half_width: float) -> str:
    """`88.0 ± 1.0`, without the second where it is not known."""
    return number(value, ".1f") + ("" if math.isnan(half_width) else f" ± {half_width:.1f}")


def number(value: float, form: str) -> str:
    """A formatted number; a dash for NaN."""
    return "–" if math.isnan(value) else format(value, form)


def figure_text(figure: Figure | None) -> str:
    """`88.0 ± 1.0 (2.0 ± 0.5) ✗`: score, drop, each with its half-width; a dash for none."""
    if figure is None:
        return "–"
    text = plus_minus(figure.score, figure.half_width)
    if not math.isnan(figure.drop):
        text += f" ({plus_minus(figure.drop, figure.drop_half_width)})"
    return text + (" ✗" if figure.failed else "")


def edge_text(edge: Edge | None) -> str:
    """`▲ 3.1 ± 1.2`; a dash where there is no edge."""
    if edge is None:
        return "–"
    return _ARROWS[edge.verdict] + plus_minus(edge.points, (edge.high - edge.low) / 2)


def refusal(row: Row) -> str:
    """Why a row has no result, in one line; several reasons name their suites."""
    reasons = each(refused.text for refused in row.refused.values())
    if len(reasons) == 1:
        return reasons[0]
    return "; ".join(f"{suite_title(suite)} {refused.text}" for suite, refused in row.refused.items())


def suite_title(suite: str) -> str:
    """A suite's name as people write it."""
    return SUITES[suite].title if suite in SUITES else suite


def each(texts: Iterable[str]) -> list[str]:
    """Each text once, in order of first appearance."""
    return list(dict.fromkeys(texts))
