"""What do the answers of a run of VQAv2's size cost, in time and memory: written, read, compared and reported?

    python -m tests.benchmarks.bench_answers

A dense and a pruned cell of 214 354 questions on 40 504 pictures: what a run does with their answers once they are there, one
step after the other in one process, imports included. Promised: 60 s and 1 GB.
"""

import contextlib
import io
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from harness.answers import Answer, Answers
from harness.bench.evaluation import Evaluated
from harness.gate.saved import SavedRun, compare
from harness.results.computed import computed, read_computed
from harness.results.store import Store
from reports.__main__ import main as report
from tests.support.results import result

QUESTIONS, PICTURES = 214_354, 40_504
LIMITS = 60.0, 1000.0  # seconds of the processor, MB


def made(share: float, seed: int) -> Answers:
    """Answers of which this share is right."""
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(QUESTIONS) < share, rng.choice([0.3, 0.6, 0.9, 1.0], QUESTIONS), 0.0)
    answers = [
        Answer(
            doc_id=place,
            image=f"{place * PICTURES // QUESTIONS:016x}",
            question=f"What is to the left of the object number {place % 90_000}?",
            answer="yes" if score else f"word {place % 3000}",
            target="yes",
            score=score,
        )
        for place, score in enumerate(scores.tolist())
    ]
    return Answers("vqav2", "exact_match", 100 * float(scores.mean()), answers, QUESTIONS, 1.0, "digest")


def main() -> None:
    lines: list[tuple[str, str, str]] = []
    started = time.process_time()

    def step(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        done = work()
        lines.append((name, f"{time.process_time() - began:.1f} s", f"{_peak():.0f} MB"))
        return done

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results")
        dense, pruned = (step(f"{name} answers made", lambda share=share: made(share, 0)) for name, share in _SHARES)
        shared = step("dense answers shared", lambda: store.shared.once("dense", Evaluated(dense, 1.0, 0.0).to_json))
        dense = step("and taken up", lambda: Evaluated.from_json(shared)).answers
        cells = [
            (result(suite="vqav2", pruner="dense", reduction_asked=None, score=dense.score, dense_score=dense.score), dense),
            (result(suite="vqav2", pruner="fitprune", score=pruned.score, dense_score=dense.score), pruned),
        ]
        saved = SavedRun(store, "before")
        saved.store.folder.mkdir(parents=True)
        for cell, own in cells:
            cell = step(f"{cell.pruner}: drop and interval", lambda cell=cell, own=own: computed(cell, own, dense))
            other = None if own is dense else dense
            step(f"{cell.pruner}: written", lambda cell=cell, own=own, other=other: store.write(cell, own, other))
            saved.write(cell, own, other)
        step("compared with a saved run", lambda: compare(saved, cell, pruned, "significant", None))
        dense = pruned = own = other = shared = None
        cells.clear()
        step("read, and worked out again", lambda: read_computed(store))
        with contextlib.redirect_stdout(io.StringIO()):
            step("reported as a page", lambda: report([str(store.folder), "--html", f"{folder}/page.html"]))
    print(tabulate([*lines, ("all", f"{time.process_time() - started:.1f} s", f"{_peak():.0f} MB")], ["", "processor", "peak"]))
    if time.process_time() - started > LIMITS[0] or _peak() > LIMITS[1]:
        raise SystemExit(f"more than {LIMITS[0]:.0f} s or {LIMITS[1]:.0f} MB")


_SHARES = (("dense", 0.8), ("pruned", 0.75))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
