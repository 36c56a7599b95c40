"""Both gates err in at most 2.5 % at the margin: one small world of each kind that `gate_errors` measures at length."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import beta, t

from harness.statistics import Verdict, certified, unseen
from harness.statistics.drops import bounded_mean
from harness.statistics.estimates import effective_number
from harness.statistics.metrics import Units
from harness.statistics.unseen import unseen_interval, unseen_weight
from harness.statistics.verdicts import significant
from tests.benchmarks.gate_errors import worlds
from tests.benchmarks.gate_errors.promises import at_the_margin
from tests.support.scores import clustered_mean

RUNS = 400


def means(kinds, images, sizes="1"):
    of, truth = kinds
    return worlds.drops_of(images, of, RUNS, sizes), 100 * truth


def exhaustively(world, name):
    return pytest.param(world, id=name, marks=pytest.mark.exhaustive)


@pytest.mark.parametrize(
    "world",
    [
        exhaustively(lambda: means(worlds.graded(0.15, 0.1, 0.005), 400), "small differences, few losses"),
        exhaustively(lambda: means(worlds.graded(0.3, 0.1, 0.01), 200), "so on fewer"),
        exhaustively(lambda: means(worlds.anls(0.2, 0.05), 40), "ANLS"),
        pytest.param(lambda: means(worlds.ternary(0.3, 0.0), 20, "2, one with a third"), id="a third on one image"),
        exhaustively(lambda: means(worlds.ternary(0.2, 0.1), 40, "1-60"), "1-60"),
        exhaustively(lambda: means(worlds.ternary(0.2, 0.0), 20), "20 images"),
        exhaustively(lambda: worlds.mme_gated((20,) * 10, 0.05, RUNS), "MME"),
        pytest.param(lambda: worlds.mme_gated((2,) * 10, 0.3, RUNS), id="MME of 20 images"),
        pytest.param(lambda: worlds.f1_gated(20, 6, 0.2, RUNS // 2), id="F1"),
    ],
)
def test_at_the_margin_either_gate_errs_in_at_most_2_5_percent(world):
    for promise in at_the_margin("", *world()):
        assert promise.kept, f"{promise.what}: {promise.measured:.3f}, promised {promise.most:.3f}"


def test_where_a_fifth_of_the_images_flip_the_interval_is_at_most_8_percent_wider():
    found = worlds.drops_of(300, worlds.ternary(0.1, 0.1)[0], 30, "1-6")
    plain = [t.ppf(0.975, 299) * drop.standard_error for drop in found]
    assert 1.0 < np.sum([drop.half_width for drop in found]) / np.sum(plain) <= 1.08


@pytest.mark.parametrize(("lost", "images"), [(0, 20), (0, 400), (3, 60), (58, 60), (200, 400)])
def test_of_equal_images_the_interval_is_clopper_and_pearsons(lost, images):
    low, high = unseen_interval(3.0 * (np.arange(images) < lost), np.full(images, 3.0), 0.0, 3.0)
    assert high == pytest.approx(beta(lost + 1, images - lost).ppf(0.975), rel=0.006)
    assert low == pytest.approx(beta(lost, images - lost + 1).ppf(0.025) if lost else 0.0, rel=0.02, abs=1e-9)


def test_of_unequal_graded_images_the_interval_is_that_of_drawn_weights():
    """A million draws of the weighted mean with one image more, as bad or as good as can be."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 9, 30).astype(float)
    totals, weight = numbers * rng.choice([-0.3, 0, 0.4, 1], 30), unseen_weight(numbers)
    weights, extra = rng.exponential(size=(300_000, 30)), rng.exponential(size=300_000)
    ends = [
        np.quantile((weights @ totals + extra * worst * weight) / (weights @ numbers + extra * weight), q)
        for worst, q in ((-1.0, 0.025), (1.0, 0.975))
    ]
    assert unseen_interval(totals, numbers, -1.0, weight) == pytest.approx(ends, abs=0.003)


@pytest.mark.parametrize("least", [0.0, -1.0])
def test_the_ends_are_where_the_chance_is_a_fortieth_and_are_found_in_few_steps(least, monkeypatch):
    """Barndorff-Nielsen's r*, its saddlepoint by another search, is ∓1.96 at both ends; a page of 10 000 cells has 40 000 of
    them.
    """
    steps, sought = [], unseen._crossing
    monkeypatch.setattr(
        unseen, "_crossing", lambda of, *where, **ends: sought(lambda at: (steps.append(at), of(at))[1], *where, **ends)
    )
    rng = np.random.default_rng(0)
    for images in (2, 20, 400):
        for values in (rng.random(images) < 0.9, rng.random(images), np.arange(images) == 0):
            numbers = rng.integers(1, 9, images).astype(float)
            totals, weight = numbers * values, unseen_weight(numbers)
            for end, worst, quantile in zip(
                unseen_interval(totals, numbers, least, weight), (least, 1.0), (-1.959964, 1.959964), strict=True
            ):
                if end == worst:  # all images are so
                    continue
                slopes = np.append(totals, worst * weight) - end * np.append(numbers, weight)
                assert drawn_at_most(slopes) == pytest.approx(quantile, abs=2e-5)
    assert len(steps) <= 2 * 9 * 45


def drawn_at_most(slopes):
    """The normal quantile of the chance that slopes times exponential weights add up to 0 or less."""

    def cumulant(s):
        return -np.log1p(-s * slopes).sum()

    found = minimize_scalar(cumulant, bounds=(1 / slopes.min(), 1 / slopes.max()), method="bounded", options={"xatol": 1e-11})
    curvature = ((slopes / (1 - found.x * slopes)) ** 2).sum()
    root = math.copysign(math.sqrt(-2 * found.fun), found.x)
    return root + math.log(found.x * math.sqrt(curvature) / root) / root


def test_an_effective_number_is_the_number_of_equal_ones():
    assert effective_number(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_number(np.array([60.0] + [2.0] * 29)) == pytest.approx(118**2 / (60**2 + 29 * 4))
    assert unseen_weight(np.full(7, 3.0)) == pytest.approx(3)
    assert unseen_weight(np.array([60.0] + [2.0] * 29)) == pytest.approx(math.sqrt(118 / 30 * (60**2 + 29 * 4) / 118))


def test_a_large_image_draws_the_mean_towards_itself_and_its_residual_is_set_right():
    """The jackknife by hand: without each image in turn."""
    values, images = np.array([1.0, 1, 1, 0, 1, 0, 0, 0]), np.array(list("aaabcdef"))
    without = np.array([values[images != image].mean() for image in "abcdef"])
    expected = math.sqrt(5 / 6 * ((without - values.mean()) ** 2).sum())
    assert clustered_mean(values, images).standard_error == pytest.approx(expected)


def test_one_image_with_half_of_the_questions_leaves_too_few_effective_images():
    image = np.repeat(np.arange(30), [60] + [2] * 29)
    mean = bounded_mean(Units(np.ones(118), image, np.zeros(118, dtype=int), 118), -1.0)
    assert math.isnan(mean.low)
    drop = worlds.drop_of(Units(np.ones(118), image, np.zeros(118, dtype=int), 118))
    assert (significant(drop, 1), certified(drop, 1)) == (Verdict.UNDECIDED, Verdict.UNDECIDED)


@pytest.mark.parametrize("least", [-1.0, 0.0])
def test_intervals_lie_inside_the_possible(least):
    for values in ([1, 1, 1, 0], [least, 1, least, 1], [1, 1, 1, 1]):
        made = np.array(values, dtype=float)
        mean = bounded_mean(Units(made, np.arange(4), np.zeros(4, dtype=int), 4), least)
        assert least <= mean.low <= mean.value <= mean.high <= 1
