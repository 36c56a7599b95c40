"""A pytest plugin for tests of ours: real sharing, statistics and results, but answers that are made up in no time.

FAKE_LOG: a file that gets one line per evaluation. FAKE_HANG: the label of a cell that never ends. FAKE_WORSE: questions
that a pruned cell loses beyond its usual ones. FAKE_PREFILL: a pruned prefill's time over the dense one's. FAKE_CRASH: labels
of cells, `,` between them, that raise an exception, or with FAKE_REFUSE a FitPruneError; "pruned" for all that prune.
"""

import os
import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from baselines.controls.random_pruning import Random
from fitprune import BudgetError, FitPruneError
from harness.answers import Answer, Answers
from harness.bench.bench import Bench
from harness.bench.evaluation import Evaluated, Evaluation
from harness.bench.resolved import Resolver
from harness.bench.timing import Timing
from harness.models.facts import ModelFacts
from harness.results.once import RunFolder

QUESTIONS = int(os.environ.get("FAKE_QUESTIONS", 60))
LOST = {"random": 30, "fastv": 3, "fitprune": 0, "dense": 0}  # of 60 questions


@dataclass
class Questions:
    """What stands for a suite's task: two questions an image."""

    rows: list[int]

    def images(self):
        return [row // 2 for row in self.rows]

    def narrowed(self, places):
        return Questions([self.rows[place] for place in places])


class FakeShelf:
    def facts(self, name):
        return ModelFacts(name, "fake", f"weights of {os.path.basename(name)}", "float32", "cpu", None)

    def model(self, name):
        return SimpleNamespace(model=None)


class FakePruners:
    def of(self, cell, facts):
        if cell.pruner == "fastv" and cell.reduction > 0.6:
            raise BudgetError("FastV cannot save 70.0%; it reaches 60.0%")
        return Random(ratio=cell.reduction or 1)


class FakeConditions:
    def __call__(self, suite, dtype):
        generation = {"max_new_tokens": 4, "batch_size": 16}
        return {
            "metric": "exact_match",
            "statistic": "mean",
            "task_code": "task",
            "data_digest": "digest",
            "generation": generation,
        }


class FakeEvaluation(Evaluation):
    def task(self, suite):
        return Questions(list(range(min(QUESTIONS, self.settings.limit or QUESTIONS))))

    def tally(self, resolved):
        return None

    def evaluate(self, resolved, journal=None, task=None, tally=None):
        cell = resolved.cell
        with open(os.environ["FAKE_LOG"], "a") as log:
            log.write(f"{'dense' if cell.is_dense else cell.label()} {cell.suite} {os.environ.get('OMP_NUM_THREADS', '')}\n")
        if cell.label() == os.environ.get("FAKE_HANG"):
            time.sleep(600)
        crash = os.environ.get("FAKE_CRASH", "")
        if not cell.is_dense and (crash == "pruned" or os.path.basename(cell.label()) in crash.split(",")):
            if said := os.environ.get("FAKE_REFUSE"):
                raise FitPruneError(said)
            raise ZeroDivisionError(f"no cache at {id(cell):#x} for {cell.reduction}")
        count = min(QUESTIONS, self.settings.limit or QUESTIONS)
        lost = 0 if cell.is_dense else LOST[cell.pruner] + int(os.environ.get("FAKE_WORSE", 0))
        rows = range(count) if task is None else task.rows
        made = [Answer(i, f"image{i // 2}", "what?", "yes", "yes", float(i >= lost)) for i in rows]
        count = len(made)
        found = sum(answer.score for answer in made) * 100 / count
        answers = Answers(cell.suite, "exact_match", found, made, count, 0.0, "digest")
        return Evaluated(answers, 1e9 if cell.is_dense else 0.6e9, 0.0 if cell.is_dense else cell.reduction)


class FakeTiming(Timing):
    def of(self, resolved):
        return {
            "latency_ms": {"prefill_ratio": float(os.environ.get("FAKE_PREFILL", 0.8)), "processes": self.processes},
            "memory_mb": 10.0,
        }


class FakeBench(Bench):
    evaluation_class = FakeEvaluation

    def __init__(self, settings, shared, results=None, device=None, processes=1, rerun=False, margin=None):
        super().__init__(settings, shared, results, device, processes, rerun, margin)
        self.shelf = FakeShelf()
        self.resolver = Resolver(settings, self.shelf, FakePruners(), FakeConditions(), margin)
        self.evaluation = self.evaluation_class(settings, self.shelf, shared, results, rerun)
        self.timing = FakeTiming(settings, self.shelf, shared, processes)


@pytest.hookimpl
def pytest_fitprune_bench(run):
    return FakeBench(
        run.options.settings,
        RunFolder(run.folder),
        run.store,
        processes=run.worker.count,
        rerun=run.options.rerun,
        margin=run.options.allowed if run.options.gate == "sequential" else None,
    )
