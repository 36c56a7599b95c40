"""Lines in which the gate speaks of a cell: what it lost, what is undecided, how many questions would tell, what it saves."""

import math

from harness.results.result import Result
from harness.results.texts import number
from harness.statistics import Verdict

# Gates that pass only what is shown to be within the margin: there, undecided fails the test.
STRICT_GATES = ("certified", "sequential")


def complaints(result: Result) -> list[str]:
    """Why the test of a judged cell fails; empty if it passes."""
    said = []
    if result.dense_fault:
        said += [result.dense_fault] if result.verdict == Verdict.FAIL else []
    elif result.verdict == Verdict.FAIL:
        said.append(failure_message(result))
    elif result.verdict == Verdict.UNDECIDED and result.gate in STRICT_GATES:
        said.append(undecided_message(result))
    return said + list(result.compared.get("complaints", ()))


def failure_message(result: Result) -> str:
    """Two lines: what was lost on which suite, and what it bought."""
    low, high = result.drop_ci95
    return (
        f"lost {result.drop:.1f} points ({result.dense_score:.1f} → {result.score:.1f}) on {result.suite}, allowed "
        f"{result.max_drop:g}: {result.cell.label()}, {interval(result)} {ends(low, high)}, n = {asked(result)}\n"
        f"{savings(result)}"
    )


def undecided_message(result: Result) -> str:
    """Two lines: what is known of the drop, and how many questions would tell more."""
    low, high = result.drop_ci95
    return (
        f"undecided: {result.cell.label()} on {result.suite} "
        + undecided(result.drop, low, high, asked(result), result.max_drop or 0.0, result.needed, interval(result))
        + f"\n{savings(result)}"
    )


def interval(result: Result) -> str:
    """What kind of interval it is."""
    return "anytime-valid 95 % interval" if result.sequential else "95 % interval"


def ends(low: float, high: float) -> str:
    """The ends of an interval, in points."""
    return f"{number(low, '.1f')} to {number(high, '.1f')}"


def asked(result: Result) -> str:
    """The number of questions; of a sequential run also how many there are."""
    return f"{result.n}" if result.full_n is None else f"{result.n} of {result.full_n}"


def undecided(
    drop: float, low: float, high: float, n: int | str, allowed: float, needed: float | None, kind: str = "95 % interval"
) -> str:
    """What is known of a drop that may lie on either side of what is allowed."""
    if not math.isfinite(low):
        return "has too few images for an interval"
    return (
        f"drops {number(drop, '.1f')} points, {kind} {ends(low, high)}, n = {n}: neither above nor below "
        f"the allowed {allowed:g} with 95 % confidence; {questions(needed)}"
    )


def questions(needed: float | None) -> str:
    """About how many questions would decide, to two digits."""
    if needed is None or not math.isfinite(needed):
        return "no number of questions would decide, so near is the drop to what is allowed"
    digits = max(0, math.floor(math.log10(max(needed, 1))) - 1)
    return f"about {math.ceil(needed / 10**digits) * 10**digits} questions would decide"


def savings(result: Result) -> str:
    """FLOPs saved, end to end and of the visual tokens."""
    if not result.flops or not result.dense_flops:
        return "FLOPs were not counted"
    visual = "" if result.reduction is None else f"; {result.reduction:.1%} of the visual tokens'"
    return (
        f"FLOPs saved: {1 - result.flops / result.dense_flops:.1%} end to end "
        f"({result.dense_flops / 1e9:.3g} → {result.flops / 1e9:.3g} G per question){visual}"
    )
