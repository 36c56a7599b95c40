"""From a drop and what is allowed to a verdict, and to the number of questions that one would take."""

import math
from collections.abc import Callable
from enum import StrEnum

from harness.statistics.drops import Drop


class Verdict(StrEnum):
    """What the gate says about a cell."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


def significant(drop: Drop, max_drop: float) -> Verdict:
    """Fail when the drop is above `max_drop` points with 95 % confidence: when its whole interval is; undecided without
    an interval, else pass.

    A drop within the margin fails in at most 2.5 % of runs; how often a larger one passes depends on the number of questions.
    """
    if not math.isfinite(drop.low):
        return Verdict.UNDECIDED
    return Verdict.FAIL if drop.low > max_drop else Verdict.PASS


def certified(drop: Drop, max_drop: float) -> Verdict:
    """Pass when the drop is below `max_drop` points with 95 % confidence, when its whole interval is; fail when the
    whole interval is above it; else undecided.

    The two one-sided tests of Schuirmann (J. Pharmacokinetics and Biopharmaceutics 15, 1987), of non-inferiority and of
    inferiority, at 2.5 % each: a drop at or above the margin passes in at most 2.5 % of runs.
    """
    if not math.isfinite(drop.low):
        return Verdict.UNDECIDED
    if drop.low > max_drop:
        return Verdict.FAIL
    return Verdict.PASS if drop.high <= max_drop else Verdict.UNDECIDED


# A sequential run stops when its interval, which holds at every moment, would be certified or fail.
GATES: dict[str, Callable[[Drop, float], Verdict]] = {
    "significant": significant,
    "certified": certified,
    "sequential": certified,
}


def questions_needed(drop: Drop, max_drop: float) -> float:
    """About how many questions would decide, on as many images each as these; inf where the drop is the margin itself, NaN
    without an interval.

    The interval's side towards the margin is to shrink to the distance between drop and margin: with the root of
    the number of images, or, where nothing differed yet, with the number itself.
    """
    if not math.isfinite(drop.low):
        return math.nan
    side = drop.high - drop.drop if drop.drop < max_drop else drop.drop - drop.low
    distance = abs(max_drop - drop.drop)
    if distance == 0:
        return math.inf
    ratio = side / distance
    return drop.n * (ratio if drop.standard_error == 0 else ratio**2)
