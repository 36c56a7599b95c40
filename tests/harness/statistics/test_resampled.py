"""Scores of which nothing is known but their aggregation: halves of the images, against what means give."""

import math

import numpy as np
import pytest

from fitprune.errors import FitPruneError
from harness.answers import RESAMPLED
from harness.statistics import half_samples, no_drop, paired_drop, score_interval
from tests.support.scores import answers


def of(scores, images, aggregate=np.mean):
    """Answers whose score is 100 x an aggregation that is known here alone."""
    made = answers([math.nan] * len(scores), images)
    made.statistic, made.score = RESAMPLED, 100 * float(aggregate(scores))
    made.replicates = [100 * float(aggregate(np.asarray(scores)[half])) for half in half_samples(images)]
    return made


def test_halves_are_of_whole_images_each_once_and_the_same_ones_again():
    images = list("aabbbcdeef")
    halves = half_samples(images)
    assert len(halves) == 200
    for half in halves:
        chosen = [images[place] for place in half]
        assert len(set(chosen)) == 3
        assert all(chosen.count(image) == images.count(image) for image in chosen)
        assert list(half) == sorted(set(half.tolist()))
    assert all((one == other).all() for one, other in zip(halves, half_samples(images), strict=True))
    assert len({tuple(half) for half in halves}) > 15


@pytest.mark.parametrize("each", [1, 3])
def test_of_a_mean_they_give_the_interval_of_a_mean(each):
    random = np.random.default_rng(0)
    images = [f"i{n}" for n in range(120) for _ in range(each)]
    before = (random.random(len(images)) < 0.8).astype(float)
    after = np.where(random.random(len(images)) < 0.2, 0.0, before)
    expected = paired_drop(answers(before, images), answers(after, images))
    found = paired_drop(of(before, images), of(after, images))
    assert found.drop == pytest.approx(expected.drop)
    assert (found.n, found.clusters) == (expected.n, expected.clusters)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=0.15)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.15 * expected.half_width)
    own, plain = score_interval(of(before, images)), score_interval(answers(before, images))
    assert (own.low, own.high) == pytest.approx((plain.low, plain.high), abs=0.15 * (plain.high - plain.low))


def test_an_interval_holds_the_truth_of_a_mean_over_categories():
    """Macro averages over two categories of unlike sizes: no mean over questions."""
    images = [f"i{n}" for n in range(80)]
    rare = np.arange(80) % 4 == 0

    def macro(pairs):
        return (pairs[pairs[:, 1] == 1, 0].mean() + pairs[pairs[:, 1] == 0, 0].mean()) / 2

    held = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        right = (random.random(80) < np.where(rare, 0.4, 0.9)).astype(float)
        estimate = score_interval(of(np.stack([right, rare], 1), images, macro))
        held += estimate.low <= 65 <= estimate.high
    assert held / 150 >= 0.92


@pytest.mark.parametrize("images", [20, 400])
def test_no_differing_answer_is_no_proof_that_nothing_was_lost(images):
    names = [f"i{n}" for n in range(images)]
    right = np.ones(images)
    drop = paired_drop(of(right, names), of(right, names))
    assert drop.drop == 0
    assert drop.high == pytest.approx(100 * (1 - 0.025 ** (1 / images)), rel=0.03)
    assert drop.low == pytest.approx(-drop.high, rel=0.03)
    assert no_drop(of(right, names)).high == 0


def test_one_image_has_no_interval():
    assert math.isnan(score_interval(of([1.0, 0.0], ["a", "a"])).low)


def test_halves_that_were_scored_for_one_of_two_only_are_no_pair():
    images = [f"i{n}" for n in range(8)]
    with pytest.raises(FitPruneError, match="halves of the questions were scored for one of the two only"):
        paired_drop(of(np.ones(8), images), answers([1.0] * 8, images))
