"""Intervals where few or no images differ, and those by resampling: exact cases, lmms-eval's own F1, simulation."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from harness.statistics import paired_drop, score_interval
from harness.statistics.bootstrap import REPLICATES, bootstrap_interval, rare_interval
from harness.statistics.metrics import f1, pair_units, yes_f1_sums
from tests.benchmarks.gate_errors.worlds import covered, drops, f1_drops, mean_sums, mme_drops
from tests.support.scores import answers, clustered_mean, mme


def share(totals):
    return totals[..., 0] / totals[..., 1]


def quantile_error(level, distribution):
    """Four standard errors of a quantile that is read off the replicates."""
    return 4 * math.sqrt(level * (1 - level) / REPLICATES) / distribution.pdf(distribution.ppf(level))


@pytest.mark.parametrize(("lost", "images"), [(0, 20), (0, 400), (1, 40), (3, 60), (58, 60)])
def test_equal_images_lost_as_a_whole_have_clopper_and_pearsons_interval(lost, images):
    image = np.repeat(np.arange(images), 3)
    parts = np.stack([image < lost, np.ones(len(image))], 1).astype(float)
    low, high = rare_interval(parts, image, share, (np.array([0.0, 3.0]), np.array([3.0, 3.0])))
    upper, lower = beta(lost + 1, images - lost), beta(lost, images - lost + 1)
    assert high == pytest.approx(upper.ppf(0.975), abs=quantile_error(0.975, upper))
    if lost:
        assert low == pytest.approx(lower.ppf(0.025), abs=quantile_error(0.025, lower))
    else:
        assert low == 0


@pytest.mark.parametrize("images", [3, 50, 398])
def test_no_differing_answer_is_no_proof_of_no_drop(images):
    same = answers([1, 0] * images, [f"image{i}" for i in range(images) for _ in range(2)])
    drop = paired_drop(same, same)
    exact = 100 * (1 - 0.025 ** (1 / images))
    room = 100 * quantile_error(0.975, beta(1, images))
    assert (drop.drop, drop.clusters) == (0, images)
    assert (drop.low, drop.high) == (pytest.approx(-exact, abs=room), pytest.approx(exact, abs=room))


def test_a_perfect_score_has_an_interval_that_ends_at_100():
    perfect = score_interval(answers([1.0] * 30, list(range(30))))
    assert perfect.high == 100
    assert perfect.low == pytest.approx(100 * 0.025 ** (1 / 30), abs=100 * quantile_error(0.025, beta(30, 1)))


def test_below_two_images_nothing_is_said():
    one = np.array([[1.0, 1.0], [0.0, 1.0]])
    assert all(map(math.isnan, bootstrap_interval(one, np.array(["a", "a"]), share)))
    single = answers([1, 1], ["a", "a"])
    assert math.isnan(paired_drop(single, single).low)
    f1_of_one = answers([1, 1], ["a", "a"], suite="pope", metric="pope_f1_score")
    assert math.isnan(paired_drop(f1_of_one, f1_of_one).low)


def test_the_bootstrap_of_a_mean_is_the_clustered_mean():
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(300), rng.integers(1, 6, 300))
    values = (rng.random(len(image)) < rng.beta(2, 2, 300)[image]).astype(float)
    mean = clustered_mean(values, image)
    low, high = bootstrap_interval(np.stack([values, np.ones(len(values))], 1), image, share)
    half = mean.high - mean.value
    assert (low, high) == (pytest.approx(mean.low, abs=0.06 * half), pytest.approx(mean.high, abs=0.06 * half))


def test_resampling_is_of_images_and_keeps_pairs():
    """The same answers twice drop nothing under any weights; repeating each question changes no interval."""
    rng = np.random.default_rng(1)
    parts, image = rng.random((60, 2)), np.repeat(np.arange(20), 3)
    twice = np.concatenate([parts, parts], 1)
    assert bootstrap_interval(twice, image, lambda t: share(t[..., :2]) - share(t[..., 2:])) == (0, 0)
    repeated = bootstrap_interval(np.repeat(parts, 5, 0), np.repeat(image, 5), share)
    assert repeated == pytest.approx(bootstrap_interval(parts, image, share))


def pope(said, truth, images):
    made = answers([float(s == t) for s, t in zip(said, truth, strict=True)], images, suite="pope", metric="pope_f1_score")
    for answer, text, target in zip(made.answers, said, truth, strict=True):
        answer.answer, answer.target = text, target
    return made


def lmms_eval_f1(made):
    from lmms_eval.tasks.pope.utils import pope_aggregate_f1_score

    records = [{"prediction": a.answer.lower().strip(), "ground_truth": a.target} for a in made.answers]
    return 100 * pope_aggregate_f1_score(records)


def test_f1_is_lmms_evals_own_also_with_answers_that_are_neither():
    rng = np.random.default_rng(2)
    truth, images = rng.choice(["yes", "no"], 90), np.repeat(np.arange(30), 3)
    often = ([0.5, 0.4, 0.1], [0.3, 0.6, 0.1])
    dense, pruned = (pope(rng.choice(["Yes", "no", "maybe"], 90, p=p), truth, images) for p in often)
    assert score_interval(dense).value == pytest.approx(lmms_eval_f1(dense))
    drop = paired_drop(dense, pruned)
    assert drop.drop == pytest.approx(lmms_eval_f1(dense) - lmms_eval_f1(pruned))
    assert drop.low < drop.drop < drop.high
    assert (drop.n, drop.clusters) == (90, 30)


def test_f1_without_a_true_positive_is_0():
    assert f1(np.array([[0.0, 3.0, 2.0], [0.0, 0.0, 0.0], [2.0, 1.0, 1.0]])) == pytest.approx([0, 0, 2 / 3])


def test_rare_differences_are_covered_and_miss_on_neither_side():
    """Student's interval alone would miss the truth in up to four of five such runs; more worlds in `gate_errors`."""
    found, truth = drops(60, 0.02, 0.02, 1.0, runs=150, sizes="2", seed=3)
    assert np.mean([drop.low <= truth <= drop.high for drop in found]) >= 0.95
    assert np.mean([drop.high < truth for drop in found]) <= 0.03
    assert np.mean([drop.low > truth for drop in found]) <= 0.03


def test_mme_needs_no_bootstrap():
    """MME is linear in its pairs: its stratified standard error covers, and the bootstrap, whose categories are each
    resampled from few images, is the narrower of the two and covers no better.
    """
    linear, resampled, truth = mme_drops((30, 30, 40, 60, 20), runs=100)
    assert 0.93 <= covered(linear, truth) <= 0.97
    assert covered(resampled, truth) <= covered(linear, truth) + 0.005
    assert np.mean(np.diff(resampled)) < np.mean(np.diff(linear))


def test_the_mean_of_sums_is_the_metric():
    made = mme([1, 1, 1, 0, 0, 0, 1, 1], list("aabbccdd"), ["count"] * 4 + ["color"] * 4)
    units = pair_units(made.answers, np.array([answer.score for answer in made.answers]))
    sums = mean_sums(units)
    assert sums.metric(sums.parts.sum(0)) == pytest.approx(score_interval(made).value / 100)


def test_coverage_of_the_paired_bootstrap_on_f1():
    assert 0.93 <= covered(*f1_drops(20, 6, 0.2, runs=600)) <= 0.97


def test_pope_sums_leave_unscored_questions_out():
    made = pope(["yes", "yes", "no"], ["yes", "no", "yes"], ["a", "b", "c"])
    sums = yes_f1_sums(made.answers, np.array([1.0, math.nan, 0.0]))
    assert sums.parts.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert list(sums.clusters) == ["a", "c"]
