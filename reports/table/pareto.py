"""Which points no other one dominates."""

import math
from collections.abc import Sequence

RULE = (
    "◆ marks Pareto-optimal rows: no other row of the table, the dense one included, scores at least as high on average for at "
    "most as many end-to-end GFLOPs, with one of the two better. It compares the figures as shown, whatever their intervals."
)


def as_shown(cost: float, score: float) -> tuple[float, float]:
    """A point at the precision of the tables, so that a hundredth of a per cent of FLOPs decides nothing."""
    return float(f"{cost:.3g}"), round(score, 1)


def frontier(points: Sequence[tuple[float, float]]) -> set[int]:
    """The places of the Pareto-optimal (cost, score) points: cost low, score high. A point without one of the two takes no
    part; equal points are all in.
    """
    best = -math.inf
    chosen: set[int] = set()
    known = [place for place, point in enumerate(points) if all(map(math.isfinite, point))]
    for place in sorted(known, key=lambda place: (points[place][0], -points[place][1])):
        cost, score = points[place]
        if score > best or any(points[other] == (cost, score) for other in chosen):
            chosen.add(place)
            best = max(best, score)
    return chosen
