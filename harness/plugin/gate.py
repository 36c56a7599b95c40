"""The words of the gate."""

from harness.store import Result


def failure_message(result: Result) -> str:
    """Two lines: what was lost on which suite, and what it bought."""
    low, high = result.drop_ci95
    return (
        f"{result.cell.label()} lost {result.drop:.1f} points on {result.suite} "
        f"({result.dense_score:.1f} -> {result.score:.1f}), 95 % interval {low:.1f} to {high:.1f}, "
        f"n = {result.n}; allowed: {result.max_drop:g}\n{savings(result)}"
    )


def savings(result: Result) -> str:
    """FLOPs saved, end to end and of the visual tokens."""
    if not result.flops or not result.dense_flops:
        return "FLOPs were not counted"
    visual = "" if result.reduction is None else f"; {result.reduction:.1%} of the visual tokens'"
    return (
        f"FLOPs saved: {1 - result.flops / result.dense_flops:.1%} end to end "
        f"({result.dense_flops / 1e9:.3g} -> {result.flops / 1e9:.3g} G per question){visual}"
    )
