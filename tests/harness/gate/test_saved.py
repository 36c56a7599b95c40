"""Saved runs from the inside: which of a cell's results is the saved one, and when a comparison is refused."""

import dataclasses

import pytest

from fitprune import FitPruneError
from harness.gate.saved import SavedRun, compare
from harness.results.store import Store
from tests.support.results import answers, result


@pytest.fixture
def saved(tmp_path):
    return SavedRun(Store(tmp_path), "main")


@pytest.mark.parametrize("days", [(1, 2), (2, 1)])
def test_of_two_results_of_a_cell_the_newer_is_the_saved_one(saved, days):
    """Two, as a run of several processes, or rsync, may leave them."""
    for code, day in zip(("a", "b"), days, strict=True):
        saved.store.write(result(code=code, date=f"2026-01-0{day}T00:00:00+00:00"), answers(), answers())
    assert len(saved.store.read_all().results) == 2
    assert saved.find(result().cell).date == "2026-01-02T00:00:00+00:00"


@pytest.mark.parametrize("name", ["question", "image", "target"])
def test_whole_answers_to_other_questions_are_refused(saved, name):
    """The saved answers are as they were written; they are to another question, or about another picture."""
    other = answers()
    other.answers[1] = dataclasses.replace(other.answers[1], **{name: "another"})
    saved.write(result(), other, answers())
    said = rf"^saved run 'main' cannot be compared: .* question 1 has the {name} 'another' and"
    with pytest.raises(FitPruneError, match=said):
        compare(saved, result(), answers(), "significant", None)
    assert compare(saved, result(), other, "significant", None)["drop"] == 0


def test_the_saved_score_is_that_of_its_answers_not_of_its_file(saved):
    saved.write(result(score=1.0), answers(), answers())
    assert compare(saved, result(), answers(), "significant", None)["score"] == pytest.approx(100)
