"""`until_decided`: dense and pruned answers, stretch by stretch, until it is known whether the drop is above a margin."""

from harness.bench.evaluation import Evaluated, Evaluation, Pair
from harness.bench.resolved import Resolved
from harness.bench.stretches import joined, stretches
from harness.results.journal import Journal
from harness.statistics import image_drops
from harness.statistics.betting import BettingBound


def until_decided(evaluation: Evaluation, resolved: Resolved, journal: Journal | None) -> Pair:
    """The answers of as many stretches as it takes until a drop of the margin is refuted from above or below."""
    stop = resolved.identity["sequential"]
    task = evaluation.task(resolved.cell.suite)
    parts = stretches(task.images(), evaluation.settings.batch_size, stop["seed"])
    margin, bound, tally = stop["margin"] / 100, BettingBound(), evaluation.tally(resolved)
    dense: list[Evaluated] = []
    pruned: list[Evaluated] = []
    for number, places in enumerate(parts):
        part = task.narrowed(places)
        pruned.append(evaluation.evaluate(resolved, journal and journal.part(number), part, tally))
        dense.append(evaluation.once(resolved.dense, part))
        bound.add(image_drops(dense[-1].answers, pruned[-1].answers))
        if bound.refutes_at_least(margin) or bound.refutes_at_most(margin):
            break
    after, before = joined([part.answers for part in pruned]), joined([part.answers for part in dense])
    flops = sum(part.flops * part.answers.prompts for part in dense) / before.prompts
    return Pair(Evaluated(before, flops, 0.0), Evaluated(after, pruned[-1].flops, pruned[-1].reduction), sum(map(len, parts)))
