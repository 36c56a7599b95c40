"""What an interval rests on: degrees of freedom, the image that was not drawn, pairs of questions; each by hand."""

import math
import random

import numpy as np
import pytest
from scipy.stats import beta, t

from harness.answering.evaluate import Answer, Answers
from harness.statistics import paired_drop, score_interval
from harness.statistics.drops import bounded_mean
from harness.statistics.estimates import stratified_mean
from harness.statistics.metrics import Units, pair_units


def test_each_stratum_takes_a_degree_of_freedom():
    """Two pairs a category, as in a small MME: three strata of 2, 2 and 3 clusters that count alike are 6.75 effective
    clusters, less one a stratum.
    """
    values = np.array([1.0, 0, 1, 0, 1, 1, 0])
    estimate = stratified_mean(values, np.arange(7), np.array([0, 0, 1, 1, 2, 2, 2]))
    half = t.ppf(0.975, 9 / (1 / 2 + 1 / 2 + 1 / 3) - 3) * estimate.standard_error
    assert (estimate.low, estimate.high) == pytest.approx((estimate.value - half, estimate.value + half))


def test_the_image_that_was_not_drawn_is_put_where_an_image_weighs_most():
    """Of 4 and of 36 images none differs. One more of the four would weigh an eighth of the mean of the two strata."""
    strata = np.repeat([0, 1], [4, 36])
    found = bounded_mean(Units(np.zeros(40), np.arange(40), strata, 40), -1.0)
    unseen = beta(1, 4)
    exact = unseen.ppf(0.975) / 2
    assert found.low == pytest.approx(-found.high)
    assert exact <= found.high <= 1.2 * exact  # the other stratum is not known without error either
    assert exact > 0.3  # a missing image of the other stratum would allow less than 0.05


def pope(said):
    """Answers to POPE, three an image, a third of them to be answered with yes."""
    made = [Answer(i, f"image{i // 3}", "q", a, "yes" if i % 3 == 0 else "no", math.nan) for i, a in enumerate(said)]
    for answer in made:
        answer.score = float(answer.answer == answer.target)
    return Answers("pope", "pope_f1_score", math.nan, made, len(made), 0.0, "digest")


@pytest.mark.parametrize("images", [5, 40])
def test_no_differing_answer_is_no_proof_that_f1_did_not_drop(images):
    same = pope(["yes", "no", "no"] * images)
    drop = paired_drop(same, same)
    assert drop.drop == 0
    assert drop.low == pytest.approx(-drop.high, rel=0.1)
    assert drop.high > 100 * (1 - 0.025 ** (1 / images))  # F1 loses more than the share of the images that are lost


def test_one_differing_image_widens_the_interval_of_f1_beyond_what_resampling_shows():
    dense = pope(["yes", "no", "no"] * 40)
    pruned = pope(["no", "no", "no"] + ["yes", "no", "no"] * 39)
    drop = paired_drop(dense, pruned)
    assert 0 < drop.drop < 2
    assert drop.low < 0
    assert drop.high > 10


def mme(scores, order=None):
    """Answers to MME, four an image: two pairs. They stand in the order in which batches gave them."""
    made = [Answer(i, f"image{i // 4}", "q", "a", "t", score, "count") for i, score in enumerate(scores)]
    made = made if order is None else [made[place] for place in order]
    return Answers("mme", "mme_perception_score", math.nan, made, len(made), 0.0, "digest")


SCORES = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("order", [[0, 2, 1, 3, 4, 6, 5, 7], random.Random(0).sample(range(8), 8)])
def test_pairs_are_of_neighbouring_questions_in_whatever_order_they_were_answered(order):
    made = mme(SCORES, order).answers
    units = pair_units(made, np.array([answer.score for answer in made]))
    assert sorted(units.values) == [0, 0.25, 1, 1]
    assert score_interval(mme(SCORES, order)) == score_interval(mme(SCORES))


def test_reordered_answers_to_mme_pair_with_those_in_order():
    worse = [1.0, 0.0, *SCORES[2:]]
    drop = paired_drop(mme(SCORES), mme(worse, [7, 0, 5, 2, 3, 1, 6, 4]))
    assert drop.drop == pytest.approx(100 * 0.75 / 4)
