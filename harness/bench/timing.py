"""`Timing`: a model's latency under a pruner, once per run, whatever the suite."""

from typing import Any

import torch

from harness.answering.evaluate import sample_inputs
from harness.bench.resolved import Resolved
from harness.bench.shelf import Shelf
from harness.cells import CellSettings
from harness.latency import measure
from harness.results.once import RunFolder, slug
from harness.tasks.specs import shows_videos

LATENCY_BATCH = 4
LATENCY_REPEATS = 5
LATENCY_WARMUP = 0  # a cell is timed when it has answered its suite, and its memory is measured first
LATENCY_TOKENS = 4


class Timing:
    """Times models in this process.

    Args:
        shared: the folder through which the processes of the run share work.
        processes: how many run cells at the same time, for the note beside a latency.
    """

    def __init__(self, settings: CellSettings, shelf: Shelf, shared: RunFolder, processes: int = 1) -> None:
        self.settings = settings
        self.shelf = shelf
        self.shared = shared
        self.processes = processes
        # Of the model and suite timed last: the inputs, and the dense model's latency once that was taken.
        self._last: tuple[tuple[str, str], dict[str, torch.Tensor], measure.Latency | None] = (("", ""), {}, None)

    def of(self, resolved: Resolved) -> dict[str, Any]:
        """`latency_ms` and `memory_mb`, as a result has them."""
        name = f"latency-{slug(resolved.cell.label())}"
        if shows_videos(resolved.cell.suite):  # other prompts than those of all other suites
            name += f"-{resolved.cell.suite}"
        return self.shared.once(name, lambda: self._time(resolved))

    def _time(self, resolved: Resolved) -> dict[str, Any]:
        loaded, suite = self.shelf.model(resolved.cell.model), resolved.cell.suite
        timed, inputs, known = self._last
        if timed != (loaded.name, suite):
            data, frames = self.settings.data, self.settings.frames
            limit = 2 * LATENCY_BATCH
            several = sample_inputs(loaded, suite, data=data, limit=limit, batch_size=LATENCY_BATCH, frames=frames)
            inputs, known = next(several), None
        options: dict[str, Any] = {"repeats": LATENCY_REPEATS, "warmup": LATENCY_WARMUP, "known": known}
        compared = measure.compare(loaded.model, inputs, resolved.pruner, LATENCY_TOKENS, **options)
        self._last = (loaded.name, suite), inputs, compared.dense
        taken = {
            "batch": compared.pruned.batch,
            "repeats": compared.pruned.repeats,
            "threads": compared.pruned.threads,
            "processes": self.processes,
            "suite": suite,
        }
        return {"latency_ms": compared.latency_ms() | taken, "memory_mb": compared.pruned.memory_mb}
