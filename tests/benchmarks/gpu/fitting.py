"""A fit at the shape of LLaVA-1.5-7B, against a plain forward of its samples and against the published procedure."""

import functools

import torch

from fitprune import FitPruneError
from tests.benchmarks.bench_fit import Workload
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.section import Measured, Row, Section
from tests.benchmarks.gpu.sizes import FIT_REDUCTION, Sizes


def rows(sizes: Sizes) -> list[Row]:
    """The fit first: the others are held against it."""
    return [
        Row(_title(sizes), 90, functools.partial(_fit, "sequential"), "{:.1f} s", limit=60),
        Row(f"{sizes.samples} samples, one-pass", 45, functools.partial(_fit, "one-pass"), "{:.1f} s", limit=60),
        Row("the published procedure, over the sequential fit", 120, _published, "{:.0f}×", limit=10, least=True),
        Row("the sequential fit, over one plain forward of its samples", 30, _forward, "{:.1f}×"),
    ]


def _title(sizes: Sizes) -> str:
    return f"{sizes.samples} samples, sequential"


def _work(bench: Bench) -> Workload:
    """Random weights and noise; what runs for the first time on a device has been run."""
    work = Workload.random(bench.model(bench.sizes.few).model, bench.sizes.samples)
    work.first(bench.sizes.fit_batch).fit([FIT_REDUCTION], "sequential", bench.sizes.fit_batch)
    return work


def _fit(mode: str, bench: Bench) -> Measured:
    work = _work(bench)
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)
    taken = work.fit([FIT_REDUCTION], mode, bench.sizes.fit_batch)
    beside = f"reduction {FIT_REDUCTION:g}, batch {bench.sizes.fit_batch}; images read and statistics written among it"
    if bench.cuda:
        beside += f"; peak {torch.cuda.max_memory_allocated(bench.device) / 1e9:.1f} GB"
    return Measured(taken, beside, {"seconds": taken})


def _sequential(bench: Bench) -> float:
    """Seconds of the fit that the row is held against."""
    if (taken := bench.finished.get(_title(bench.sizes))) is None:
        raise FitPruneError("the sequential fit has no figure to compare with")
    return taken


def _published(bench: Bench) -> Measured:
    """From a few samples: each is run on its own, so that the time is proportional to their number."""
    fitted, work, few = _sequential(bench), _work(bench), bench.sizes.literal
    work.first(1).published(FIT_REDUCTION, loops=False, read_again=False)
    part = work.first(few).published(FIT_REDUCTION)
    whole = part * bench.sizes.samples / few
    beside = f"{whole / 60:.0f} min, estimated from {part:.1f} s for {few} of the {bench.sizes.samples} samples; batch 1"
    return Measured(whole / fitted, beside, {"part_seconds": part, "samples": few, "estimated_seconds": whole})


def _forward(bench: Bench) -> Measured:
    fitted, taken = _sequential(bench), _work(bench).forward(bench.sizes.fit_batch)
    return Measured(fitted / taken, f"a forward takes {taken:.1f} s, images read", {"seconds": taken})


SECTION = Section("fit", "a fit", rows)
