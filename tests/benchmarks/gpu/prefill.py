"""Pruned prefills against dense ones, random weights at the shapes of 7B models: FitPrune by budget, and all methods at one."""

import dataclasses
import functools

from harness.latency.measure import Comparison
from tests.benchmarks.bench_methods import Row as Timed
from tests.benchmarks.bench_methods import rows as timed_rows
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.section import Measured, Row, Section
from tests.benchmarks.gpu.sizes import METHODS_REDUCTION, Shape, Sizes


def over_flops(few_or_many: str, sizes: Sizes) -> list[Row]:
    """FitPrune at all budgets and batch sizes."""
    shape: Shape = getattr(sizes, few_or_many)
    return [
        Row(
            f"{shape}, batch {batch}, reduction {reduction:g}",
            10 + shape.tokens * batch / 1500,
            functools.partial(_over_flops, shape, reduction, batch),
            limit=1.10,
        )
        for batch in sizes.batches
        for reduction in sizes.reductions
    ]


def methods(few_or_many: str, sizes: Sizes) -> list[Row]:
    """The methods at one budget, one prompt."""
    shape: Shape = getattr(sizes, few_or_many)
    return [
        Row(f"{name}, {shape}", 5 + shape.tokens / 400, functools.partial(_over_dense, shape, name), limit=1.0)
        for name in sizes.methods
    ]


def _over_flops(shape: Shape, reduction: float, batch: int, bench: Bench) -> Measured:
    timed = _timed(shape, "fitprune", reduction, batch, bench, energy=bench.cuda)
    return timed if isinstance(timed, Measured) else _measured(timed, timed.compared.prefill_ratio / timed.flops)


def _over_dense(shape: Shape, name: str, bench: Bench) -> Measured:
    timed = _timed(shape, name, METHODS_REDUCTION, 1, bench)
    return timed if isinstance(timed, Measured) else _measured(timed, timed.compared.prefill_ratio)


def _timed(shape: Shape, name: str, reduction: float, batch: int, bench: Bench, energy: bool = False) -> Timed | Measured:
    """The method's row; where it has none, why."""
    cannot: list[dict] = []
    model = bench.model(shape)
    found = list(timed_rows(model, bench.asked(shape, (name,), reduction, batch), cannot, energy))
    return found[0] if found else Measured(None, cannot[0]["reason"])


def _measured(timed: Timed, figure: float) -> Measured:
    found: Comparison = timed.compared
    ratio, (first, third) = found.prefill_ratio, found.prefill_ratio_iqr
    beside = [
        f"time {ratio:.3f} ({first:.3f}–{third:.3f})",
        f"FLOPs {timed.flops:.3f}",
        f"time / FLOPs {ratio / timed.flops:.2f}",
        f"scoring {timed.scoring_time:.1%} of the dense time",
        f"{found.dense.prefill_ms:.4g} → {found.pruned.prefill_ms:.4g} ms",
        f"working memory {found.working_memory_ratio:.2f}",
        f"KV cache {found.kv_ratio:.2f}",
        f"peak {found.dense.memory_mb / 1e3:.2f} → {found.pruned.memory_mb / 1e3:.2f} GB",
    ]
    if found.energy_ratio is not None:
        beside.append(f"energy {found.energy_ratio:.2f}, {found.dense.energy_j:.3g} → {found.pruned.energy_j:.3g} J a prompt")
    beside += [timed.slow] if timed.slow else []
    return Measured(figure, "; ".join(beside), {**dataclasses.asdict(timed), "notes": found.notes()})


FEW = Section("prefill-few", "FitPrune's prefill: time over FLOPs, both over dense", functools.partial(over_flops, "few"))
MANY = Section("prefill-many", FEW.title, functools.partial(over_flops, "many"))
METHODS_TITLE = f"a method's prefill at reduction {METHODS_REDUCTION:g}: time over dense"
METHODS_FEW = Section("methods-few", METHODS_TITLE, functools.partial(methods, "few"))
METHODS_MANY = Section("methods-many", METHODS_TITLE, functools.partial(methods, "many"))
