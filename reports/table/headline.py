"""What a table says, in a sentence made from its rows; which cells its gate failed; which methods a chart names."""

from harness.cells import DENSE, FITPRUNE
from harness.results.table import Row, Table
from harness.results.texts import AVERAGE, number
from harness.statistics import Verdict
from harness.tasks.specs import suite_title
from reports.table.points import FLOPS, optimal_at

RANDOM = "random"
NAMED = 6  # methods that a chart names at the ends of their lines, at most


def sentence(table: Table) -> str:
    """At the reduction nearest to one half: what FitPrune, or else the best method, keeps of the dense score, what the best and
    random pruning do, and which suite loses most. Of a table without a pruned average, the dense score alone.
    """
    dense, suites = table.rows[0], table.averaged
    pruned = [row for row in table.rows[1:] if row.cell.reduction is not None and number(row.mean(suites), ".1f") != "–"]
    whole = number(dense.mean(suites), ".1f")
    if not pruned:
        return f"The dense model scores {whole} points." if whole != "–" else ""
    reduction = min((row.cell.reduction or 0 for row in pruned), key=lambda value: (abs(value - 0.5), value))
    there = [row for row in pruned if row.cell.reduction == reduction and not row.cell.positions]
    there = there or [row for row in pruned if row.cell.reduction == reduction]
    best = max(there, key=lambda row: row.mean(suites))
    chosen = next((row for row in there if row.cell.pruner == FITPRUNE), best)
    others = [(row, f"{row.cell.pruner} {number(row.mean(suites), '.1f')}") for row in _beside(there, chosen, best)]
    said = f"With {reduction:.0%} of the visual tokens’ FLOPs saved, {chosen.cell.pruner} keeps "
    said += f"{number(chosen.mean(suites), '.1f')} of {whole} points" + "".join(f"; {text}" for _, text in others)
    worst = chosen.worst(suites)
    if worst is not None and len(suites) > 1 and worst[1].drop >= 0.05:
        said += f". {suite_title(worst[0])} loses most, {number(worst[1].drop, '.1f')}"
    return f"{said}."


def _beside(rows: list[Row], chosen: Row, best: Row) -> list[Row]:
    """The best row, and that of random pruning, where these are others than the chosen one."""
    control = next((row for row in rows if row.cell.pruner == RANDOM), chosen)
    return list({id(row): row for row in (best, control) if row is not chosen}.values())


def failures(table: Table) -> list[str]:
    """The cells that lost more than allowed, the largest excess first."""
    failed = [
        (result.drop - (result.max_drop or 0), row.name, result)
        for row in table.rows
        for result in row.results.values()
        if result.verdict == Verdict.FAIL and not row.is_dense
    ]
    failed.sort(key=lambda entry: (-entry[0], entry[1]))
    return [
        f"{name} on {suite_title(result.suite)}: lost {number(result.drop, '.1f')} points, allowed {result.max_drop or 0:g}"
        for _, name, result in failed
    ]


def named(table: Table) -> list[str]:
    """The methods that a chart names: FitPrune, random pruning, and those with the most Pareto-optimal rows."""
    optimal = optimal_at(table, AVERAGE, FLOPS)
    count: dict[str, int] = {}
    for place, row in enumerate(table.rows):
        if row.cell.pruner != DENSE and row.results:
            count[row.cell.pruner] = count.get(row.cell.pruner, 0) + (place in optimal)
    first = {FITPRUNE: 2, RANDOM: 1}
    return sorted(count, key=lambda name: (-first.get(name, 0), -count[name]))[:NAMED]
