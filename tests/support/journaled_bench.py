"""For tests that kill: cells of made-up answers that go, batch by batch, through the real journal, store and locks."""

import os
import time
from pathlib import Path

from harness.answers import Answer, Answers
from harness.bench.evaluation import Evaluated
from harness.cells import Cell, CellSettings
from harness.results.once import RunFolder
from harness.results.store import Store
from tests.support.fake_bench import FakeBench, FakeEvaluation

QUESTIONS, BATCH = 40, 4
LOST = {"dense": 0, "random": 20, "fastv": 5}  # of 40 questions
CELLS = [
    Cell("m", pruner, reduction, suite)
    for suite in ("gqa", "pope", "mme")
    for pruner, reduction in (("dense", None), ("random", 0.3), ("random", 0.5), ("fastv", 0.3), ("fastv", 0.5))
]


class JournaledEvaluation(FakeEvaluation):
    @property
    def log(self):
        """What is asked, a line a batch; in the folder where the processes of the run are."""
        return Path(os.environ["JOURNALED_LOG"])

    def evaluate(self, resolved, journal=None, task=None, tally=None):
        cell = resolved.cell
        entries = [*journal.entries]
        done = {entry["first"] for entry in entries}
        for first in range(0, QUESTIONS, BATCH):
            if first not in done:
                time.sleep(float(os.environ.get("JOURNALED_PACE", 0.001)))
                with self.log.open("ab", buffering=0) as log:
                    log.write(f"{cell.label()} {cell.suite} {first}\n".encode())
                entry = {"first": first, "scores": [float(i >= LOST[cell.pruner]) for i in range(first, first + BATCH)]}
                journal.append(entry)
                entries.append(entry)
        scores = [score for entry in sorted(entries, key=lambda entry: entry["first"]) for score in entry["scores"]]
        made = [Answer(i, f"image{i // 2}", "what?", "yes", "yes", score) for i, score in enumerate(scores)]
        answers = Answers(cell.suite, "exact_match", 100 * sum(scores) / len(scores), made, len(made), 0.0, "digest")
        return Evaluated(answers, 1e9 if cell.is_dense else 0.6e9, 0.0 if cell.is_dense else cell.reduction)


class JournaledBench(FakeBench):
    evaluation_class = JournaledEvaluation


def run_cells(folder: str) -> None:
    """What a run of the suites does with its cells."""
    store, run = Store(Path(folder) / "results"), Path(folder) / f"run-{os.getpid()}"
    os.environ["JOURNALED_LOG"] = str(Path(folder) / "log")
    bench = JournaledBench(CellSettings(), RunFolder(run), store)
    for cell in CELLS:
        with bench.measuring(cell) as measured:
            if not measured.cached:
                store.write(measured.result, measured.answers, None if cell.is_dense else measured.dense)
