"""Which points no other one dominates."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

RULE = (
    "◆ marks Pareto-optimal rows: no other row of the table, the dense one included, scores at least as high on average for at "
    "most as many end-to-end GFLOPs, with one of the two better. Scores are compared as shown, whatever their intervals; costs "
    "within 1 % are equal."
)
SLACK = 1.01


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
