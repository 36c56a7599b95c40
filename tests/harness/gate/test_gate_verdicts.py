"""The gate's rules: by hand, and with the error rates that they promise, in simulation."""

import argparse
import math

import numpy as np
import pytest

from harness.gate.thresholds import Thresholds
from harness.gate.wording import questions
from harness.statistics import Drop, Verdict, certified, questions_needed
from harness.statistics.verdicts import significant
from tests.benchmarks.gate_errors.worlds import drops

PASS, FAIL, UNDECIDED = Verdict


@pytest.mark.parametrize(
    ("low", "high", "by_default", "strictly"),
    [
        (2.1, 8.0, FAIL, FAIL),
        (2.0, 8.0, PASS, UNDECIDED),
        (-1.0, 2.1, PASS, UNDECIDED),
        (-1.0, 2.0, PASS, PASS),
        (0.0, 0.0, PASS, PASS),
        (math.nan, math.nan, UNDECIDED, UNDECIDED),
    ],
)
def test_an_interval_and_a_margin_of_2(low, high, by_default, strictly):
    drop = Drop(1.5, low, high, 100, 50)
    assert (significant(drop, 2), certified(drop, 2)) == (by_default, strictly)


@pytest.mark.parametrize(
    ("drop", "needed"),
    [
        (Drop(2.0, 0.0, 4.0, 100, 50, 1.0), 400),  # the lower side, 2, is to shrink to 1
        (Drop(0.0, -3.0, 3.0, 100, 50, 1.5), 900),
        (Drop(0.0, -3.0, 3.0, 100, 50, 0.0), 300),  # nothing differs: such an interval shrinks with n itself
        (Drop(1.0, -3.0, 3.0, 100, 50, 1.0), math.inf),
        (Drop(1.0, math.nan, math.nan, 1, 1), math.nan),
    ],
)
def test_questions_that_would_decide_about_a_margin_of_1(drop, needed):
    assert questions_needed(drop, 1.0) == pytest.approx(needed, nan_ok=True)


@pytest.mark.parametrize(
    ("needed", "said"),
    [
        (412.3, "about 420 questions would decide"),
        (7.2, "about 8 "),
        (123456.0, "about 130000 "),
        (math.inf, "no number of "),
        (None, "no number"),
    ],
)
def test_questions_in_words(needed, said):
    assert questions(needed).startswith(said)


@pytest.mark.parametrize(
    ("text", "points", "latency"),
    [
        ("1.5", {"gqa": 1.5, "pope": 1.5}, None),
        ("gqa:1.0, pope:0.5", {"gqa": 1.0, "pope": 0.5, "mme": None}, None),
        ("gqa:0,2,latency:10%", {"gqa": 0.0, "mme": 2.0}, 10.0),
        ("latency:2.5%", {"gqa": None}, 2.5),
    ],
)
def test_thresholds(text, points, latency):
    read = Thresholds.parse(text, latency=True)
    assert {suite: read.points(suite) for suite in points} == points
    assert read.latency == latency
    assert Thresholds.parse(str(read), latency=True) == read


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gqa", "gqa is not a number of points"),
        ("gqa:x", "gqa:x is not a number of points"),
        ("gqa:nan", "gqa:nan is not a number of points"),
        ("101", "101 is not a number of points"),
        ("gqa:5,gqa:6", "gqa:5 and gqa:6 both set what gqa may lose; keep one"),
        ("5, 6", "5 and 6 both set what all suites may lose; keep one"),
        ("latency:5%,latency:6%", "latency:5% and latency:6% both set what latency may lose; keep one"),
        ("1,,2", " is not a number of points"),
        (":1", ":1 names no suite"),
        ("latency:10", "latency:10 is not a share of the prefill time in percent"),
        ("latency:-1%", "latency:-1% is not a share"),
    ],
)
def test_thresholds_that_cannot_be_meant(text, said):
    with pytest.raises(argparse.ArgumentTypeError, match=rf"^{said}"):
        Thresholds.parse(text, latency=True)


def test_latency_is_no_threshold_of_the_gate_itself():
    with pytest.raises(argparse.ArgumentTypeError, match="not a number of points"):
        Thresholds.parse("latency:10%")


def rate(found, rule, margin, verdict):
    return np.mean([rule(drop, margin) == verdict for drop in found])


# As in `gate_errors`, which has more worlds and more runs: losses that are rare, and common ones beside gains.
RARE, COMMON = (130, 0.02, 0.01, 0.5, 200), (130, 0.2, 0.1, 0.6, 2500)


@pytest.mark.exhaustive
def test_coverage_with_images_of_one_to_six_questions():
    found, truth = drops(*COMMON)
    assert 0.93 <= np.mean([drop.low <= truth <= drop.high for drop in found]) <= 0.97


@pytest.mark.parametrize("world", [RARE, pytest.param(COMMON, marks=pytest.mark.exhaustive)])
def test_at_the_margin_both_gates_err_in_at_most_5_percent(world):
    """A drop that is just within the margin must not fail, one just outside must not be certified: the worst case of each
    error is the margin itself.
    """
    found, truth = drops(*world)
    assert rate(found, significant, truth, FAIL) <= 0.05
    assert rate(found, certified, truth, FAIL) <= 0.05
    assert rate(found, certified, truth, PASS) <= 0.05


def test_a_large_drop_fails_and_a_small_one_is_certified():
    found, truth = drops(*COMMON)
    width = np.mean([drop.half_width for drop in found])
    assert rate(found, significant, truth - 2.5 * width, FAIL) >= 0.95
    assert rate(found, certified, truth + 2.5 * width, PASS) >= 0.95


def test_as_many_questions_as_it_says_decide_in_about_half_of_the_runs():
    """With n questions more, the interval's end reaches the margin on average, so about half of the runs lie beyond."""
    small, truth = drops(*COMMON)
    margin = truth + 4.0
    needed = np.median(
        [
            questions_needed(Drop(truth, *(truth + d.low - d.drop, truth + d.high - d.drop), d.n, d.clusters, 1.0), margin)
            for d in small
        ]
    )
    large, _ = drops(round(needed / np.mean([d.n for d in small]) * 130), 0.2, 0.1, 0.6, 200)
    assert 0.4 <= rate(large, certified, margin, PASS) <= 0.6
