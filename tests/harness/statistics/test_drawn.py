"""The bound on a suite's own drop: against a literal version, at its edges, and its error whatever is predicted."""

import math

import numpy as np
import pytest

from harness.statistics.drawn import Draw, DrawnBound
from harness.statistics.foretelling import Foreteller, chosen_draw
from tests.benchmarks.tune_errors.worlds import Case, errs, followed

DENSE = np.array([1.0, 1.0, 0.0, 0.6, 1.0, 0.0, 1.0, 0.3, 1.0, 1.0])
DROPS = np.array([0.0, 1.0, -1.0, 0.6, 0.0, 0.0, 0.0, -0.7, 0.0, 0.0])


def literal_evidence(dense, drops, stretches, mean, sign):
    """Draw by draw and stake by stake, as the docstring has it; with sign -1 against a mean below."""
    total, left, found = len(dense), set(range(len(dense))), 0.0
    products = [1.0] * 9
    for how, places in stretches:
        at_first = sorted(left)
        for place in places:
            weight = sum(how.weights[i] for i in left)

            def chance(i, weight=weight, how=how):
                return how.weights[i] / weight

            claim = total * mean - found - sum(how.predicted[i] for i in left)
            payoff = (drops[place] - how.predicted[place]) / chance(place)
            most = max(((dense[i] if sign > 0 else 1 - dense[i]) - sign * how.predicted[i]) / chance(i) for i in at_first)
            stakes = [0.5**k for k in range(8)] + [how.stakes[0 if sign > 0 else 1]]
            for number, stake in enumerate(stakes):
                products[number] *= 1 + stake * sign * (claim - payoff) / (most - sign * claim)
            found += drops[place]
            left.remove(place)
    return math.log(sum(products[:8]) / 16 + products[8] / 2)


def drawn(seed=0, counts=(2, 3)):
    rng = np.random.default_rng(seed)
    bound, stretches = DrawnBound(DENSE), []
    for count in counts:
        how = Draw(rng.uniform(0.2, 2, 10), rng.uniform(-0.2, 0.2, 10), (0.3, 0.7))
        places = bound.draw(how, count, rng)
        bound.add(how, places, DROPS[places])
        stretches.append((how, places))
    return bound, stretches


@pytest.mark.parametrize("seed", range(5))
def test_the_evidence_is_the_literal_one(seed):
    bound, stretches = drawn(seed)
    asked = np.concatenate([places for _, places in stretches])
    rest = np.setdiff1d(np.arange(10), asked)
    most, least = ((DROPS[asked].sum() + (DENSE[rest] - gained).sum()) / 10 for gained in (0, 1))
    for share in (0.1, 0.4, 0.7):
        mean = least + share * (most - least)
        assert bound.evidence_below(mean) == pytest.approx(literal_evidence(DENSE, DROPS, stretches, mean, 1))
        assert bound.evidence_above(mean) == pytest.approx(literal_evidence(DENSE, DROPS, stretches, mean, -1))
    assert bound.evidence_below(most) == bound.evidence_above(least) == math.inf


def test_the_interval_is_where_the_evidence_crosses():
    dense, drops, features = Case("right or wrong", "noise", 400, 0.05, 0.05).made(0)
    bound = next(bound for bound in followed(dense, drops, features, 0.02, np.random.default_rng(0)) if bound.asked > 150)
    low, high = bound.interval(0.05)
    assert -0.2 < low < drops.mean() < high < 0.2
    assert bound.evidence_below(high + 1e-6) >= math.log(40) > bound.evidence_below(high - 1e-6)
    assert bound.evidence_above(low - 1e-6) >= math.log(40) > bound.evidence_above(low + 1e-6)


def test_without_draws_only_what_scores_allow_is_known():
    bound = DrawnBound(DENSE)
    assert bound.interval(0.05) == pytest.approx((DENSE.mean() - 1, DENSE.mean()))
    assert bound.evidence_below(0.1) == pytest.approx(0)
    assert math.isnan(bound.estimate())
    assert bound.evidence_below(DENSE.mean()) == math.inf


def test_what_all_questions_say_is_certain():
    bound, _ = drawn(2, (3, 7))
    truth = float(DROPS.mean())
    assert bound.interval(0.05) == pytest.approx((truth, truth), abs=1e-6)
    assert (bound.evidence_below(truth), bound.evidence_below(truth - 1e-6)) == (math.inf, -math.inf)
    assert (bound.evidence_above(truth), bound.evidence_above(truth + 1e-6)) == (math.inf, -math.inf)
    assert bound.estimate() == truth


def test_draws_are_in_proportion_to_the_weights():
    weights = np.array([1.0, 2.0, 5.0, 2.0])
    rng, first, second = np.random.default_rng(0), np.zeros(4), np.zeros(4)
    for _ in range(4000):
        places = DrawnBound(np.ones(4)).draw(Draw(weights, np.zeros(4)), 2, rng)
        first[places[0]] += 1
        second[places[1]] += places[0] == 2
    assert first / 4000 == pytest.approx(weights / 10, abs=0.025)
    assert second[[0, 1, 3]] / second.sum() == pytest.approx(np.array([0.2, 0.4, 0.4]), abs=0.04)


@pytest.mark.parametrize("predicted", [DROPS / 2, -DROPS / 2])
def test_the_estimate_is_unbiased_whatever_is_predicted(predicted):
    found = []
    for seed in range(1000):
        rng, bound = np.random.default_rng(seed), DrawnBound(DENSE)
        how = Draw(np.linspace(0.5, 2, 10), predicted)
        for _ in range(2):
            places = bound.draw(how, 2, rng)
            bound.add(how, places, DROPS[places])
        found.append(bound.estimate())
    assert np.mean(found) == pytest.approx(DROPS.mean(), abs=4 * np.std(found) / math.sqrt(1000) + 1e-9)


def test_what_cannot_be_is_an_error():
    how, bound = Draw(np.ones(10), np.zeros(10)), DrawnBound(DENSE)
    bound.add(how, np.array([0]), DROPS[:1])
    with pytest.raises(ValueError, match="asked once"):
        bound.add(how, np.array([0]), DROPS[:1])
    with pytest.raises(ValueError, match="leaves of the dense one"):
        bound.add(how, np.array([2]), np.array([0.5]))
    with pytest.raises(ValueError, match="no chance"):
        bound.draw(Draw(np.zeros(10), np.zeros(10)), 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="shares"):
        DrawnBound(np.array([1.5]))


@pytest.mark.parametrize(
    ("world", "predictor"),
    [
        ("right or wrong", "adversary"),
        pytest.param("graded", "informed", marks=pytest.mark.exhaustive),
        pytest.param("unequal images", "noise", marks=pytest.mark.exhaustive),
    ],
)
def test_at_the_margin_it_errs_in_at_most_its_level(world, predictor):
    """Under continuous monitoring to the last question; ten times the level is looked at so that few runs suffice. 2 000 runs
    of larger worlds in `tune_errors`.
    """
    case = Case(world, predictor, 80, 0.06, 0.04)
    made = np.mean([errs(case, seed, 0.2) for seed in range(120)], 0)
    assert (made <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / 120)).all()


def test_a_good_prediction_saves_questions_and_a_hostile_one_costs_few():
    """At a drop of nothing and a margin of two points, on 3 000 questions of which one in twelve differs."""

    def asked(predictor):
        counts = []
        for seed in range(4):
            dense, drops, features = Case("right or wrong", predictor, 3000, 0.04, 0.04).made(seed)
            runs = followed(dense, drops, features, 0.02, np.random.default_rng(seed), 32)
            counts.append(next(bound.asked for bound in runs if bound.evidence_below(0.02) >= math.log(40)))
        return np.median(counts)

    informed, noise, hostile = map(asked, ("informed", "noise", "adversary"))
    assert informed <= 0.75 * noise
    assert hostile <= 1.6 * noise


def test_chances_follow_what_was_seen():
    rng = np.random.default_rng(0)
    features, dense = rng.normal(size=(2000, 2)), np.ones(2000)
    drops = (rng.random(2000) < 1 / (1 + np.exp(2 - 2 * features[:, 1]))).astype(float)
    teller, bound = Foreteller(), DrawnBound(dense)
    before, _ = teller.chances(features, bound)
    assert np.corrcoef(before, features[:, 0])[0, 1] > 0.5  # the prior: the first feature
    how = Draw(np.ones(2000), np.zeros(2000))
    places = bound.draw(how, 1000, rng)
    bound.add(how, places, drops[places])
    teller.take_in(features[places], dense[places], drops[places])
    loss, gain = teller.chances(features, bound)
    assert loss[bound.left].mean() == pytest.approx(drops[bound.left].mean(), abs=0.05)
    assert np.corrcoef(loss, features[:, 1])[0, 1] > 0.8
    assert gain.max() < 0.5


def test_every_question_that_is_left_has_a_chance():
    dense, drops, features = Case("right or wrong", "adversary", 200, 0.05, 0.05).made(0)
    for bound in followed(dense, drops, features, 0.02, np.random.default_rng(0)):
        if bound.left.any():
            how = chosen_draw(bound, *Foreteller().chances(features, bound), 0.02)
            assert (how.weights[bound.left] > 0).all()
            assert (how.weights[~bound.left] == 0).all()
