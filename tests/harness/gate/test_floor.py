"""The floor under the dense score: zero, chance, cards and papers, earlier runs; and what a run does about it."""

import dataclasses

import numpy as np
import pytest

from harness.gate.floor import dense_fault
from harness.results.store import Store
from harness.tasks.specs import find_suite
from tests.support import fake_bench
from tests.support.results import result
from tests.support.scores import answers

pytest_plugins = ["pytester", "tests.support.suite_runs"]


def of(points, count=100, **changes):
    made = answers((np.arange(count) < points * count / 100).astype(float).tolist(), list(range(count)))
    dense = {"pruner": "dense", "reduction_asked": None, "dense_score": float(points), "score": float(points)}
    return result(**({"data_digest": "digest"} | dense | changes)), made


@pytest.mark.parametrize(
    ("points", "changes", "said"),
    [
        (0, {}, "the dense llava-tiny scores 0.0 on gqa: it has nothing to lose"),
        (1, {}, ""),
        (30, {"suite": "pope"}, "scores 30.0 on pope, below the 50 of guessing with 95 % confidence"),
        (45, {"suite": "pope"}, ""),  # of 100 questions that may be chance
        (20, {"suite": "mme"}, "below the 37.5 of guessing"),
        (88, {"data": "mini"}, "scores 88.0 on gqa, more than 10 points under the 100.0 of reports/embedded/leaderboard.md"),
        (91, {"data": "mini"}, ""),
        (88, {"data": "d"}, ""),  # of other questions nothing is registered
        (88, {"data": "mini", "limit": 100}, ""),  # a sample may be unlucky
        (60, {"data": "mini", "limit": 100}, "more than 10 points under"),
        (50, {"data": "hub", "model": "llava-1.5-7b"}, "scores 50.0 on gqa, more than 10 points under the 61.9 of EADP"),
    ],
)
def test_a_dense_score_below_the_floor_is_a_fault(tmp_path, points, changes, said):
    fault = dense_fault(*of(points, **changes), Store(tmp_path), find_suite(changes.get("suite", "gqa")).chance)
    assert said in fault
    assert bool(fault) == bool(said)
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("changes", "faulty"),
    [({}, True), ({"code": "other"}, True), ({"data_digest": "x"}, False), ({"weights": "x"}, False), ({"limit": 3}, False)],
)
def test_an_earlier_run_of_the_same_questions_is_known(tmp_path, changes, faulty):
    store = Store(tmp_path)
    store.write(*of(80, **changes))
    assert ("more than 10 points under the 80.0 of a run of 2026-01-01" in dense_fault(*of(69), store)) == faulty
    assert dense_fault(*of(71), store) == ""


def test_a_faulty_or_damaged_earlier_run_is_no_measure(tmp_path):
    store = Store(tmp_path)
    made, dense = of(99)
    store.write(dataclasses.replace(made, dense_fault="too low"), dense)
    (tmp_path / "llava-tiny-dense-gqa-0.json").write_text("{")
    assert dense_fault(*of(69), store) == ""


def scoring(monkeypatch, points, wrong):
    """The fake answers, of which those at `wrong` are."""
    plain = fake_bench.FakeEvaluation.evaluate

    def evaluate(self, *arguments):
        found = plain(self, *arguments)
        for answer in found.answers.answers[wrong]:
            answer.score = 0.0
        found.answers.score = points
        return found

    monkeypatch.setattr(fake_bench.FakeEvaluation, "evaluate", evaluate)


def test_nothing_against_nothing_passes_no_gate(run, monkeypatch):
    scoring(monkeypatch, 0.0, slice(None))
    result = run("--max-drop", "5", "--pruner", "dense,fitprune", "--reduction", "0.5")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*the dense *m scores 0.0 on gqa: it has nothing to lose, and no drop says anything; *"])
    assert {read.verdict for read in Store(run.folder).read_all().results} == {"fail"}
    run("--max-drop", "5", "--pruner", "fitprune", "--reduction", "0.5").assert_outcomes(failed=1)  # from the cache too


def test_without_a_gate_the_dense_cell_fails_alone(run, monkeypatch):
    scoring(monkeypatch, 0.0, slice(None))
    run("--pruner", "dense,fitprune", "--reduction", "0.5").assert_outcomes(failed=1, passed=1)


def test_a_broken_engine_is_seen_against_the_run_before(run, monkeypatch):
    assert run("--max-drop", "5", "--pruner", "dense").ret == 0
    scoring(monkeypatch, 50.0, slice(None, None, 2))
    result = run("--max-drop", "5", "--pruner", "dense", "--rerun")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*scores 50.0 on gqa, more than 10 points under the 100.0 of a run of *"])
