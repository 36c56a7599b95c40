"""What is computed from answers is computed anew on every read, and what is odd about them is said."""

import dataclasses
import math

import pytest

from harness.bench.outcome import Measured
from harness.results import computed as computing
from harness.results.computed import computed, read_computed
from harness.results.store import Store
from harness.statistics import Drop, paired_drop
from tests.support.results import result
from tests.support.scores import answers

pytest_plugins = ["pytester", "tests.support.suite_runs"]

IMAGES = [f"image{i}" for i in range(40)]
DENSE, PRUNED = answers([1.0] * 40, IMAGES), answers([1.0] * 30 + [0.0] * 10, IMAGES)
STALE = result(score=1.0, dense_score=2.0, drop=-3.0, drop_ci95=(-4.0, -2.0), n=7, gate="significant", max_drop=1.0)


def check(read):
    expected = paired_drop(DENSE, PRUNED)
    assert (read.score, read.dense_score, read.drop) == pytest.approx((75, 100, 25))
    assert read.drop_ci95 == pytest.approx((expected.low, expected.high))
    assert (read.n, read.clusters, read.verdict) == (40, 40, "fail")
    assert read.score_ci95[0] < 75 < read.score_ci95[1]


def test_stale_figures_on_disk_are_nobodys_answer(tmp_path):
    store = Store(tmp_path)
    store.write(STALE, PRUNED, DENSE)
    (read,), notes = read_computed(store)
    check(read)
    assert notes == []


def test_what_a_cell_finds_in_the_folder_is_made_anew_too():
    check(Measured.stored(STALE.cell, STALE, list(PRUNED.to_records(DENSE))).result)


def test_scores_of_lmms_eval_stay_as_they_are_where_the_questions_give_them():
    own = dataclasses.replace(STALE, score=75 + 1e-9, dense_score=100.0)
    assert computed(own, PRUNED, DENSE).score == 75 + 1e-9


def test_without_its_answers_a_result_is_as_in_its_file_and_named(tmp_path):
    store = Store(tmp_path)
    store.write(STALE, PRUNED, DENSE)
    next(tmp_path.glob("*.answers.jsonl")).unlink()
    (read,), (note,) = read_computed(store)
    assert read.score == 1.0
    assert "are those of its file: cannot read the answers in" in note


def test_a_change_of_the_statistics_needs_no_new_answers(run, monkeypatch):
    arguments = ("--max-drop", "12", "--reduction", "0.5", "--pruner", "fitprune")
    assert run(*arguments).ret == 0
    asked = run.log.read_text()
    monkeypatch.setattr(computing, "paired_drop", lambda before, after: Drop(50.0, 40.0, 60.0, 60, 30, 1.0))
    again = run(*arguments)
    assert again.ret == 1
    again.stdout.fnmatch_lines(["*lost 50.0 points * on gqa*95 % interval 40.0 to 60.0*", "cached: 1 of 1 cells *"])
    assert run.log.read_text() == asked


@pytest.mark.parametrize(
    ("texts", "targets", "said"),
    [
        ([" "] * 40, ["yes", "no"] * 20, "gqa: all 40 answers are empty"),
        (["yes"] * 40, ["yes", "no"] * 20, "gqa: all 40 answers are 'yes', whatever the question"),
        (["yes"] * 40, ["yes"] * 40, ""),
        (["yes", "no"] * 20, ["yes", "no"] * 20, ""),
    ],
)
def test_answers_that_no_model_in_its_senses_gives_are_noted(texts, targets, said):
    made = answers([1.0, 0.0] * 20, IMAGES)
    for answer, text, target in zip(made.answers, texts, targets, strict=True):
        answer.answer, answer.target = text, target
    assert computed(result(), made, made).note == said


@pytest.mark.parametrize(("missing", "said"), [(2, "gqa: 2 of 100 questions have no score"), (1, "")])
def test_of_the_dense_model_too_more_than_a_hundredth_without_a_score_is_noted(missing, said):
    made = answers([1.0, 0.0] * 49 + [1.0] * (2 - missing) + [math.nan] * missing, list(range(100)))
    for place, answer in enumerate(made.answers):
        answer.answer = str(place % 2)
    assert computed(result(pruner="dense", reduction_asked=None), made, made).note == said


def test_questions_without_a_score_in_one_of_the_two_are_noted():
    own = answers([1.0, 0.0] * 19 + [1.0, math.nan], IMAGES)
    for place, answer in enumerate(own.answers):
        answer.answer = str(place % 2)
    assert computed(result(), own, DENSE).note == "gqa: 1 questions have no score and take no part in the drop"
