"""In which order cells are dealt out, and how close that comes to the shortest time there could be."""

import random

import pytest

from harness.cells import Cell
from harness.cluster.schedule import Schedule, makespan


def cells(model, lengths, pruner="random"):
    return {Cell(model, pruner, 0.1 + place / 1e4, f"s{place % 7}"): seconds for place, seconds in enumerate(lengths)}


def made(seconds, load=0.0):
    return Schedule(seconds, seconds.__getitem__, lambda model: load)


def test_recipes_and_dense_answers_first_then_the_longest():
    seconds = {
        Cell("m", "fastv", 0.5, "gqa"): 3.0,
        Cell("m", "fitprune", 0.5, "gqa"): 9.0,
        Cell("m", "fitprune", 0.3, "gqa"): 8.0,
        Cell("m", "dense", None, "pope"): 1.0,
        Cell("m", "dense", None, "gqa"): 2.0,
        Cell("m", "random", 0.5, "gqa"): 5.0,
    }
    schedule = made(seconds)
    dealt = [schedule.deal("w", "m", ["m"], 0.0) for _ in seconds]
    assert [(cell.pruner, seconds[cell]) for cell in dealt] == [
        ("fitprune", 9.0),
        ("dense", 2.0),
        ("dense", 1.0),
        ("random", 5.0),
        ("fastv", 3.0),
        ("fitprune", 8.0),
    ]
    assert schedule.deal("w", "m", ["m"], 0.0) is None


def test_a_worker_stays_with_its_model_and_helps_another_where_that_is_quicker():
    seconds = cells("a", [10.0] * 2) | cells("b", [10.0] * 6)
    schedule = made(seconds, load=15.0)
    first = schedule.deal(1, None, ["a", "b"], 0.0)
    second = schedule.deal(2, None, ["a", "b"], 0.0)
    assert (first.model, second.model) == ("b", "a")  # a model that nobody holds comes before a second worker of one
    assert schedule.deal(2, "a", ["a", "b"], 25.0).model == "a"
    # Five cells wait for the one at "b", which ends at 25: with 15 s to load, the other is done with one at 60.
    assert schedule.deal(2, "a", ["a", "b"], 35.0).model == "b"
    short = made(cells("b", [10.0] * 2), load=15.0)
    assert short.deal(1, "b", ["b"], 0.0) is not None
    assert short.deal(2, "a", ["b"], 0.0) is None  # 10 + 10 s with one worker, 15 + 10 s with a second one


def test_a_cell_of_a_worker_that_is_gone_is_the_next():
    seconds = cells("a", [5.0, 4.0, 3.0])
    schedule = made(seconds)
    gone = schedule.deal(1, None, ["a"], 0.0)
    assert schedule.put_back(1) == gone
    assert schedule.deal(2, None, ["a"], 0.0) == gone
    assert schedule.put_back(3) is None
    assert len(schedule) == 3


def test_64_workers_take_2000_equal_cells_in_little_more_than_the_ideal_time():
    seconds = {}
    for model in "abcde":
        seconds |= cells(model, [60.0] * 400)
    ideal = 2000 * 60.0 / 64
    assert ideal / makespan(seconds, 64, lambda model: 30.0) >= 0.9


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_workers_take_uneven_cells_of_models_of_uneven_size(seed):
    """4 models, cells of 1 min to 2 h, a minute to load one. A thousand workers: `tests/benchmarks/bench_cluster.py`."""
    draw, seconds = random.Random(seed), {}
    for model in range(4):
        size, pace = draw.randint(100, 1000), draw.uniform(0.5, 4.0)
        seconds |= cells(f"m{model}", [pace * 60 * draw.choice([1, 2, 5, 10, 30]) for _ in range(size)])
    ideal = max(sum(seconds.values()) / 100, max(seconds.values()))
    assert ideal / makespan(seconds, 100, lambda model: 60.0) >= 0.9
