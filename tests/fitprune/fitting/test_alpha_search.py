"""The search for alpha on made-up runs: no model, a known answer, and few runs."""

import numpy as np
import pytest

from fitprune.fitting.alpha_search import ALPHA_STEPS, Runs, smallest_step
from fitprune.fitting.curve import mean_curve, scaled, smallest_scale

LAYERS, TOKENS, SAMPLES = 6, 100, 2


class World:
    """Batches whose drops grow with alpha, each at a pace of its own; `error` is how far the simulation is off."""

    def __init__(self, batches, seed, error=0.0):
        generator = np.random.default_rng(seed)
        self.pace = generator.uniform(0.5, 3, LAYERS) * generator.uniform(0.8, 1.25, (batches, SAMPLES, LAYERS))
        self.error, self.batches = error, batches
        self.done = []

    def at(self, step, batch, error=0.0):
        alpha = step / ALPHA_STEPS
        left = np.floor(TOKENS * (1 - alpha) ** (self.pace[batch] * (1 + error))).astype(int)
        left = np.minimum.accumulate(left, 1)
        return -np.diff(left, axis=1, prepend=TOKENS)

    def run(self, step, batch):
        assert (step, batch) not in self.done, "a batch was run twice at one alpha"
        self.done.append((step, batch))
        return self.at(step, batch)

    def runs(self):
        tokens = [np.full(SAMPLES, TOKENS) for _ in range(self.batches)]
        return Runs(tokens, LAYERS, self.run, lambda step, batch: self.at(step, batch, self.error))


def share(budget):
    """The mean number of tokens that enter a layer, as a share of a budget; the first layer always sees all."""
    return lambda left: (TOKENS + float(left[:, :-1].sum(1).mean())) / LAYERS / budget


def by_trying_all(world, spent):
    for step in range(1, ALPHA_STEPS + 1):
        dropped = np.concatenate([world.at(step, batch) for batch in range(world.batches)])
        if spent(TOKENS - dropped.cumsum(1)) <= 1:
            return step
    raise AssertionError("out of reach")


@pytest.mark.product(strength=2)
@pytest.mark.parametrize("error", [0.0, 0.3, -0.3, 1.5])
@pytest.mark.parametrize("batches", [1, 3, 40])
@pytest.mark.parametrize("budget", [90, 60, 40, 25, 17])
def test_the_smallest_step_is_found(batches, budget, error):
    for seed in range(3):
        world = World(batches, seed, error)
        spent = share(budget)
        assert smallest_step(world.runs(), spent) == by_trying_all(world, spent)


def test_a_search_takes_little_more_than_two_passes():
    world = World(40, 0, error=0.2)
    runs = world.runs()
    smallest_step(runs, share(40))
    assert len(world.done) <= 2.25 * 40


def test_another_budget_uses_the_runs_there_are():
    world = World(40, 1)
    runs = world.runs()
    first = smallest_step(runs, share(40))
    before = len(world.done)
    assert smallest_step(runs, share(40)) == first
    assert len(world.done) == before
    smallest_step(runs, share(30))
    assert len(world.done) - before <= 2.25 * 40


def test_each_run_is_announced_once():
    world, announced = World(4, 2), []
    runs = world.runs()
    runs.on_run = lambda: announced.append(1)
    smallest_step(runs, share(40))
    runs.left(64)
    runs.left(64)
    assert len(announced) == len(world.done)


def test_bounds_hold_what_a_run_gives():
    world = World(2, 3)
    runs = world.runs()
    runs.left(40)
    runs.left(80)
    for step in (10, 40, 60, 80, 120):
        literal = np.concatenate([TOKENS - world.at(step, batch).cumsum(1) for batch in range(2)])
        fewest, most = (runs.bound(step, range(2), fewest=fewest) for fewest in (True, False))
        assert (fewest <= literal).all()
        assert (literal <= most).all()
        if step in (40, 80):
            assert (fewest == most).all()


def test_a_curve_stops_scales_and_rounds():
    tokens, left = np.array([10, 20]), np.array([[8, 5, 0], [20, 10, 10]])
    assert mean_curve(tokens, left, 3).tolist() == [0.9, 0.5, 0.25]
    assert mean_curve(tokens, left, 2).tolist() == [0.9, 0.5, 0.5]
    assert scaled(np.array([0.9, 0.5, 0.25]), 1.0, 100) == [10, 40, 25]
    assert scaled(np.array([0.9, 0.5, 0.25]), 2.0, 100) == [20, 80, 0]
    assert smallest_scale(lambda scale: scale >= 0.7) == pytest.approx(0.7, abs=1e-11)
