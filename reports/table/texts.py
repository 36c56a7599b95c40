"""Short texts: edges, the reasons of a refusal."""

from collections.abc import Iterable

from harness.results.result import Result
from harness.results.table import Row
from harness.results.texts import plus_minus
from harness.tasks.specs import suite_title
from reports.table.rivals import Edge

_ARROWS = {"beats": "▲ ", "loses": "▼ ", "even": "≈ ", "unknown": ""}


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


def questions(results: Iterable[Result]) -> str:
    """`400 questions a suite`, `100 to 400 questions a suite`."""
    sizes = sorted({result.n for result in results})
    return f"{sizes[0]}{f' to {sizes[-1]}' * (len(sizes) > 1)} questions a suite"


def each(texts: Iterable[str]) -> list[str]:
    """Each text once, in order of first appearance."""
    return list(dict.fromkeys(texts))
