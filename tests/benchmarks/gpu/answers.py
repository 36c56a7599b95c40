"""Answers a second in a large batch against one by one: at the shape of a 7B model, and of an evaluation by the harness."""

import dataclasses
import functools
import statistics

from harness.latency.measure import measure
from harness.latency.run import reachable
from harness.models.loading import load_model
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.section import Measured, Row, Section
from tests.benchmarks.gpu.sizes import FIT_REDUCTION, Shape, Sizes

EVALUATED, SUITE = "llava-tiny", "gqa"
METHODS = (None, "fitprune")


def rows(sizes: Sizes) -> list[Row]:
    """The shape of a 7B model first."""
    one, many = sizes.batches[0], sizes.batches[-1]
    found = []
    for name in METHODS:
        title = "dense" if name is None else f"{name} at {FIT_REDUCTION:g}"
        shaped = functools.partial(_shaped, sizes.few, name)
        found.append(Row(f"{sizes.few}, {title}: batch {many} over batch {one}", 25, shaped, "{:.2f}×"))
    evaluated = f"{EVALUATED} with its weights, {sizes.questions} questions by the harness: batch {many} over batch {one}"
    return [*found, Row(evaluated, 45, _evaluated, "{:.2f}×")]


def _shaped(shape: Shape, name: str | None, bench: Bench) -> Measured:
    model, pruner = bench.model(shape), None
    if name is not None:
        cannot: list[dict] = []
        found = list(reachable(bench.asked(shape, (name,), FIT_REDUCTION, 1), model, model.batches[0], cannot))
        if not found:
            return Measured(None, cannot[0]["reason"])
        pruner = found[0][2]
    options = {"new_tokens": bench.sizes.new_tokens, "repeats": bench.sizes.repeats, "warmup": 1, "energy": bench.cuda}
    taken = {}
    for batch in (bench.sizes.batches[0], bench.sizes.batches[-1]):
        prompts = model.prompt(bench.asked(shape, (), FIT_REDUCTION, batch), batch)
        taken[batch] = measure(model.model, prompts, pruner, **options)
    answers = {batch: 1e3 * batch / found.end_to_end_ms for batch, found in taken.items()}
    (one, first), (many, last) = taken.items()
    beside = f"answers of {bench.sizes.new_tokens} tokens: {answers[one]:.3g} → {answers[many]:.3g} a second; "
    beside += f"peak {first.memory_mb / 1e3:.2f} → {last.memory_mb / 1e3:.2f} GB"
    if first.energy_j is not None and last.energy_j is not None:
        beside += f"; {first.energy_j:.3g} → {last.energy_j:.3g} J an answer"
    notes = [*first.notes, *last.notes]
    raw = {str(batch): dataclasses.asdict(found) for batch, found in taken.items()}
    return Measured(answers[many] / answers[one], beside, {**raw, "notes": notes})


def _evaluated(bench: Bench) -> Measured:
    """Wall time of a whole evaluation, pictures read and prompts made: large batch and one by one, in turn."""
    from tests.benchmarks.bench_preprocessing import LOOK_AHEAD, run

    loaded = load_model(EVALUATED, device=str(bench.device))
    one, many = bench.sizes.batches[0], bench.sizes.batches[-1]
    walls: dict[int, list[float]] = {many: [], one: []}
    for batch in (many, one, *(one, many) * bench.sizes.repeats):
        walls[batch].append(run(loaded, SUITE, "mini", bench.sizes.questions, batch, LOOK_AHEAD)[0])
    # The first of each warmed up.
    answers = {batch: bench.sizes.questions / statistics.median(taken[1:]) for batch, taken in walls.items()}
    beside = f"{str(loaded.dtype).removeprefix('torch.')}; {answers[one]:.3g} → {answers[many]:.3g} answers a second"
    return Measured(answers[many] / answers[one], beside, {"answers_per_second": {str(key): answers[key] for key in answers}})


SECTION = Section("answers", "answers a second", rows)
