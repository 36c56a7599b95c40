"""Statistics against hand calculation, against lmms-eval's own aggregate, and in simulation."""

import math

import numpy as np
import pytest

from fitprune.errors import FitPruneError
from harness.statistics import Drop, no_drop, paired_drop, score_interval
from harness.statistics.estimates import stratified_mean, t_interval
from tests.benchmarks.gate_errors.worlds import covered, mme_scores, together
from tests.support.scores import answers, clustered_mean, mme

pytestmark = pytest.mark.releases


def test_one_question_an_image_is_the_textbook_standard_error():
    values = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    estimate = clustered_mean(values, np.arange(5))
    assert estimate.value == pytest.approx(0.6)
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(5))
    assert (estimate.n, estimate.clusters) == (5, 5)


def test_clusters_by_hand():
    # Residuals from 0.5: +.5 +.5 | -.5 -.5 | +.5 -.5; sums 1, -1, 0; variance (1 + 1) / 6² · 3/2.
    estimate = clustered_mean(np.array([1.0, 1, 0, 0, 1, 0]), np.array(list("aabbcc")))
    assert estimate.standard_error == pytest.approx(math.sqrt(2 / 36 * 3 / 2))


def test_repeating_every_question_adds_no_certainty():
    once = clustered_mean(np.array([0.0, 1, 1, 0, 1]), np.arange(5))
    thrice = clustered_mean(np.repeat([0.0, 1, 1, 0, 1], 3), np.repeat(np.arange(5), 3))
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))


def test_interval_has_the_t_quantile_of_the_clusters():
    assert t_interval(0, 1, 4) == pytest.approx((-2.7764451, 2.7764451))
    assert t_interval(0, 1, 10**6) == pytest.approx((-1.96, 1.96), abs=1e-3)


@pytest.mark.parametrize(("values", "clusters"), [([], []), ([1.0], ["a"]), ([1.0, 0.0], ["a", "a"])])
def test_below_two_clusters_nothing_is_said(values, clusters):
    estimate = clustered_mean(np.array(values), np.array(clusters))
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert math.isnan(estimate.standard_error)
    assert math.isnan(estimate.value) == (not values)


def test_strata_count_alike_and_their_variances_add():
    values, clusters = np.array([1.0, 0, 1, 1, 0, 0, 1, 0]), np.arange(8)
    strata = np.array([0, 0, 1, 1, 1, 1, 1, 1])
    estimate = stratified_mean(values, clusters, strata)
    parts = [clustered_mean(values[strata == s], clusters[strata == s]) for s in (0, 1)]
    assert estimate.value == pytest.approx(sum(part.value for part in parts) / 2)
    assert estimate.standard_error == pytest.approx(math.hypot(*(part.standard_error for part in parts)) / 2)


def test_an_image_in_two_strata_carries_its_covariance():
    values, strata = np.array([1.0, 0, 1, 0] * 2), np.repeat([0, 1], 4)
    apart = stratified_mean(values, np.arange(8), strata)
    shared = stratified_mean(values, np.tile(np.arange(4), 2), strata)
    assert shared.standard_error == pytest.approx(math.sqrt(2) * apart.standard_error)


def test_a_stratum_of_one_image_has_no_interval():
    assert math.isnan(stratified_mean(np.array([1.0, 0, 1]), np.arange(3), np.array([0, 0, 1])).low)


def test_drop_is_in_points_and_pairs_by_question():
    dense = answers([1, 1, 1, 0], ["a", "a", "b", "c"])
    pruned = answers([1, 0, 1, 0], ["a", "a", "b", "c"])
    pruned.answers.reverse()
    drop = paired_drop(dense, pruned)
    assert drop.drop == pytest.approx(25)
    assert (drop.n, drop.clusters, drop.unscored) == (4, 3, 0)
    assert drop.low < 25 < drop.high


def test_a_model_against_itself_drops_nothing():
    dense = answers([1, 0, 1], ["a", "b", "c"])
    assert no_drop(dense) == Drop(0, 0, 0, 3, 3, 0, 0)


def test_unscored_is_left_out_and_never_zero():
    dense = answers([1, 1, 1, math.nan], ["a", "b", "c", "d"])
    pruned = answers([1, 0, math.nan, 1], ["a", "b", "c", "d"])
    drop = paired_drop(dense, pruned)
    assert (drop.drop, drop.n, drop.unscored) == (pytest.approx(50), 2, 2)
    assert score_interval(dense).value == pytest.approx(100)


def test_nothing_scored_is_nan():
    nothing = answers([math.nan] * 3, ["a", "b", "c"])
    assert math.isnan(paired_drop(nothing, nothing).drop)
    assert math.isnan(score_interval(nothing).value)


def test_other_questions_cannot_be_paired():
    with pytest.raises(FitPruneError, match="not the same questions"):
        paired_drop(answers([1, 1], ["a", "b"]), answers([1], ["a"]))


def lmms_eval_points(made):
    from lmms_eval.tasks.mme.utils import mme_aggregate_results

    records = [{"question_id": a.image, "category": a.group, "score": a.score} for a in made.answers]
    return 100 * mme_aggregate_results(records) / (200 * len({a.group for a in made.answers}))


def random_mme(rng, pairs=(3, 5, 8), right=0.7):
    images = [f"{c}-{i}" for c, count in enumerate(pairs) for i in range(count) for _ in range(2)]
    groups = [str(c) for c, count in enumerate(pairs) for _ in range(2 * count)]
    return mme((rng.random(len(images)) < right).astype(float).tolist(), images, groups)


def test_mme_is_lmms_evals_own_metric():
    rng = np.random.default_rng(0)
    dense, pruned = random_mme(rng), random_mme(rng, right=0.4)
    assert score_interval(dense).value == pytest.approx(lmms_eval_points(dense))
    drop = paired_drop(dense, pruned)
    assert drop.drop == pytest.approx(lmms_eval_points(dense) - lmms_eval_points(pruned))
    assert (drop.n, drop.clusters) == (32, 16)


def test_mme_leaves_cognition_and_half_scored_pairs_out():
    made = mme(
        [1, 1, 0, 0, 1, math.nan, math.nan, math.nan],
        ["a", "a", "b", "b", "c", "c", "d", "d"],
        ["count"] * 6 + ["code_reasoning"] * 2,
    )
    assert score_interval(made).value == pytest.approx(50)
    assert paired_drop(made, made).n == 4


def test_mme_images_asked_about_four_times_make_two_pairs():
    made = mme([1, 1, 1, 0, 1, 1], ["a", "a", "a", "a", "b", "b"], ["count"] * 6)
    assert score_interval(made).value == pytest.approx(100 * (1 + 0.25 + 1) / 3)


def test_coverage_of_the_paired_drop_with_clustered_questions():
    """1200 of the suites of `gate_errors`: the interval holds the true drop in 93-97 % of them."""
    assert 0.93 <= covered(*together(1200)) <= 0.97


def test_coverage_without_clustering_would_be_too_low():
    """The same kind of data, questions taken as independent: what the clustering is for."""
    rng = np.random.default_rng(2)
    intervals = []
    for _ in range(500):
        values = np.repeat(rng.random(60) < 0.3, 5).astype(float)
        estimate = clustered_mean(values, np.arange(len(values)))
        intervals.append((estimate.low, estimate.high))
    assert covered(intervals, 0.3) < 0.75


def test_coverage_of_mmes_own_metric():
    """MMEs of five unequal categories whose pairs of answers hang together."""
    assert 0.93 <= covered(*mme_scores(1000)) <= 0.97
