"""Which questions a limit takes."""

import random
from collections import Counter

import pytest

from fitprune.errors import FitPruneError
from harness.tasks.build import build_task
from harness.tasks.limit import choose_rows
from tests.support.tiny_llava import write_suites

pytestmark = pytest.mark.releases


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_suites(tmp_path_factory.mktemp("data")))


def test_a_limit_is_met_exactly_and_spread_over_the_images() -> None:
    clusters = [row // 5 for row in range(500)]
    rows = choose_rows(clusters, [None] * 500, 201)
    assert rows == sorted(set(rows))
    assert len(rows) == 201
    assert sorted(Counter(clusters[row] for row in rows).values()) == [2] * 99 + [3]


def test_not_always_the_first_question_about_an_image_is_taken() -> None:
    rows = choose_rows([row // 4 for row in range(800)], [None] * 800, 200)
    places = Counter(row % 4 for row in rows)
    assert all(30 < places[place] < 70 for place in range(4))


def test_categories_take_different_images() -> None:
    clusters = [row // 3 for row in range(300)]
    rows = choose_rows(clusters, [row % 3 for row in range(300)], 60)
    assert len({clusters[row] for row in rows}) > 40


def test_a_limit_does_not_favour_the_beginning() -> None:
    rows = choose_rows(list(range(1000)), [None] * 1000, 200)
    assert 400 < sum(rows) / len(rows) < 600


def test_the_choice_does_not_depend_on_the_order_of_the_data() -> None:
    clusters = [f"image {row}" for row in range(300)]
    shuffled = random.Random(0).sample(clusters, len(clusters))
    chosen = {clusters[row] for row in choose_rows(clusters, [None] * 300, 60)}
    assert chosen == {shuffled[row] for row in choose_rows(shuffled, [None] * 300, 60)}


def test_a_smaller_limit_takes_a_part_of_a_larger_one() -> None:
    clusters = list(range(300))
    assert set(choose_rows(clusters, [None] * 300, 50)) < set(choose_rows(clusters, [None] * 300, 100))


def test_categories_keep_their_proportion() -> None:
    strata = ["a"] * 600 + ["b"] * 300 + ["c"] * 100
    rows = choose_rows(list(range(1000)), strata, 101)
    counts = Counter(strata[row] for row in rows)
    assert sum(counts.values()) == 101
    assert counts["a"] in (60, 61)
    assert counts["b"] in (30, 31)
    assert counts["c"] in (10, 11)


@pytest.mark.parametrize(("limit", "used"), [(1, 2), (2, 2), (7, 6), (10, 10)])
def test_pairs_stay_together(limit: int, used: int) -> None:
    clusters = [row // 2 for row in range(40)]
    rows = choose_rows(clusters, [row // 20 for row in range(40)], limit, clusters)
    assert len(rows) == used
    assert set(Counter(clusters[row] for row in rows).values()) == {2}


def test_a_limited_task_holds_the_chosen_questions(data: str) -> None:
    whole, task = build_task("gqa", data), build_task("gqa", data, limit=3)
    assert len(task.eval_docs) == 3
    assert task.notes == []
    questions = whole.eval_docs_no_media["question"][:]
    assert task.eval_docs_no_media["question"][:] == [questions[row] for row in task.rows]
    assert task.rows == build_task("gqa", data, limit=3).rows


def test_pope_keeps_its_three_kinds_of_questions(data: str) -> None:
    task = build_task("pope", data, limit=6)
    assert Counter(task.eval_docs_no_media["category"]) == {"adversarial": 2, "popular": 2, "random": 2}


def test_an_odd_limit_on_mme_is_noted(data: str) -> None:
    task = build_task("mme", data, limit=7)
    assert len(task.eval_docs) == 6
    assert task.notes == ["mme: 7 questions asked, 6 used: what is scored together stays together"]


def test_fewer_questions_than_asked_are_noted(data: str) -> None:
    task = build_task("vqav2", data, limit=100)
    assert len(task.eval_docs) == 4
    assert task.notes == ["vqav2_val: 100 questions asked, the data have 4; all are used"]


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(data: str, limit: int) -> None:
    with pytest.raises(FitPruneError, match="at least 1"):
        build_task("gqa", data, limit=limit)
