"""The candidates of a search: each method at each budget that it can reach, and what it saves."""

from collections.abc import Mapping, Sequence

from fitprune import BudgetError, UnsupportedModel
from harness.bench.bench import Bench
from harness.bench.resolved import Resolved
from harness.cells import Cell
from harness.tuning.search import Candidate


def label(pruner: str, reduction: float) -> str:
    """A candidate's name."""
    return f"{pruner}@{reduction:g}"


def candidates_of(
    bench: Bench, model: str, pruners: Sequence[str], reductions: Sequence[float], suites: Sequence[str], goal: str = "flops"
) -> tuple[dict[Candidate, dict[str, Resolved]], list[str]]:
    """Each candidate with its cells by suite, and a line for each that cannot be: its budget is out of the method's reach.

    goal: "flops", where a candidate saves its share of the visual tokens' FLOPs; "latency", where it saves the share of the
    time of a short answer that was measured here.
    """
    found: dict[Candidate, dict[str, Resolved]] = {}
    notes: list[str] = []
    for pruner in pruners:
        for reduction in sorted(reductions):
            cells = {suite: Cell(model, pruner, reduction, suite) for suite in suites}
            try:
                resolved = {suite: bench.resolver.resolve(cell) for suite, cell in cells.items()}
            except (BudgetError, UnsupportedModel) as error:
                notes.append(f"{label(pruner, reduction)}: {error}")
                continue
            saved = reduction if goal == "flops" else saved_time(bench, resolved)
            found[Candidate(label(pruner, reduction), pruner, saved)] = resolved
    return found, notes


def saved_time(bench: Bench, resolved: Mapping[str, Resolved]) -> float:
    """Which share of the dense model's time a short answer takes less."""
    return 1 - float(bench.timing.of(next(iter(resolved.values())))["latency_ms"]["end_to_end_ratio"])
