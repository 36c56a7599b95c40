"""What can be said about an accuracy, and about the accuracy that pruning cost, from a sample of questions.

One function per statistic, each with its source. What cannot be said (fewer than two clusters, a question without a
score) is NaN, never 0: an unscored question is left out of n, and an interval that does not exist stays NaN until
the table, where it is shown as such.

Questions about one image succeed or fail together, so the image, not the question, is the independent draw. Every
standard error here is therefore clustered by image.

Values in this module are shares (0-1) while they are arrays, and points (0-100) in everything that is returned about answers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from fitprune.errors import FitPruneError

if TYPE_CHECKING:
    from harness.evaluate import Answer, Answers

CONFIDENCE = 0.95

# The four categories that MME counts as cognition (Fu et al. 2023, arXiv 2306.13394); the perception score leaves them out.
MME_COGNITION = frozenset({"commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"})


@dataclass(frozen=True)
class Estimate:
    """A mean and what is known about it: standard error and two-sided 95 % interval, over `n` values in `clusters` clusters."""

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    clusters: int

    def points(self) -> "Estimate":
        """The same estimate on the scale of 0-100."""
        return Estimate(100 * self.value, 100 * self.standard_error, 100 * self.low, 100 * self.high, self.n, self.clusters)


@dataclass(frozen=True)
class Drop:
    """Dense minus pruned accuracy in points, with its 95 % interval, over `n` questions on `clusters` images.

    `unscored` questions had no score under one of the two and take no part.
    """

    drop: float
    low: float
    high: float
    n: int
    clusters: int
    standard_error: float = math.nan
    unscored: int = 0

    @property
    def half_width(self) -> float:
        """Half the length of the interval, in points."""
        return (self.high - self.low) / 2


class Verdict(StrEnum):
    """What the gate says about a cell."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Units:
    """What a suite's metric averages: one value per unit, the image it hangs on, and the stratum whose mean it enters.

    For most suites a unit is a question and there is one stratum; for MME a unit is the pair of questions about an
    image, and the strata are the categories, which count alike however many pairs they hold.
    """

    values: np.ndarray
    clusters: np.ndarray
    strata: np.ndarray
    questions: int


def t_interval(value: float, standard_error: float, freedom: int) -> tuple[float, float]:
    """Two-sided 95 % interval with Student's t at `freedom` degrees of freedom; NaN below one degree.

    The variance is estimated from as many independent pieces as there are clusters, so its uncertainty is that of
    clusters - 1 degrees of freedom (clusters - strata if there are strata), not n - 1: Cameron and Miller, "A
    Practitioner's Guide to Cluster-Robust Inference" (Journal of Human Resources 50(2), 2015). With
    many images it is the normal quantile; with few, the normal one is too short.
    """
    if freedom < 1 or not math.isfinite(standard_error):
        return math.nan, math.nan
    half = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * standard_error
    return value - half, value + half


def clustered_mean(values: np.ndarray, clusters: np.ndarray) -> Estimate:
    """The mean of `values` with its cluster-robust standard error; NaN where there are fewer than two clusters.

    Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640): the variance of the mean is the sum
    over clusters of the squared sum of residuals, over n². The small-sample factor G / (G - 1) for G clusters is
    Cameron and Miller's (2015).

    values: (n,) floats without NaN; clusters: (n,) labels.
    """
    return stratified_mean(values, clusters, np.zeros(len(values), dtype=int))


def stratified_mean(values: np.ndarray, clusters: np.ndarray, strata: np.ndarray) -> Estimate:
    """The unweighted mean over strata of the stratum means, with its standard error clustered across and within strata.

    The estimator is linear in the values, so its variance is that of the clusters' sums of influence, stratum by
    stratum with the factor G_s / (G_s - 1): Cochran, "Sampling Techniques" (3rd edition, 1977), on stratified
    and on cluster sampling. Where one image occurs in several strata its parts are added before squaring, so that
    their covariance counts. NaN interval where a stratum has one cluster only.

    values: (n,) floats without NaN; clusters, strata: (n,) labels.
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0)
    cluster_names, cluster = np.unique(clusters, return_inverse=True)
    stratum_names, stratum = np.unique(strata, return_inverse=True)
    sizes = np.bincount(stratum)
    means = np.bincount(stratum, weights=values) / sizes
    value = float(means.mean())
    pairs = np.unique(np.stack([stratum, cluster]), axis=1)
    clusters_in = np.bincount(pairs[0], minlength=len(stratum_names))
    if (clusters_in < 2).any():
        return Estimate(value, math.nan, math.nan, math.nan, n, len(cluster_names))
    correction = np.sqrt(clusters_in / (clusters_in - 1))
    influence = (values - means[stratum]) * (correction / sizes)[stratum] / len(stratum_names)
    standard_error = float(np.sqrt((np.bincount(cluster, weights=influence) ** 2).sum()))
    low, high = t_interval(value, standard_error, len(cluster_names) - len(stratum_names))
    return Estimate(value, standard_error, low, high, n, len(cluster_names))


def question_units(answers: "Sequence[Answer]", scores: np.ndarray) -> Units:
    """One unit per scored question: the metrics that are a mean over questions (exact match, POPE accuracy)."""
    scored = np.isfinite(scores)
    images = np.array([answer.image for answer in answers], dtype=object)[scored].astype(str)
    return Units(scores[scored], images, np.zeros(int(scored.sum()), dtype=int), int(scored.sum()))


def mme_units(answers: "Sequence[Answer]", scores: np.ndarray) -> Units:
    """One unit per image of an MME perception category: the mean of acc and acc+ on its pair of questions.

    MME (Fu et al. 2023, arXiv 2306.13394): accuracy over the questions plus accuracy+ (both questions
    of an image right), summed over categories. With 200 points a category this is the mean over categories of (acc
    + acc+) / 2, which is what is returned here as a share. A pair with an unscored question, or without its second
    question, takes no part.
    """
    pairs: dict[tuple[str, str], list[int]] = {}
    for position in sorted(range(len(answers)), key=lambda i: answers[i].doc_id):
        answer = answers[position]
        if answer.group not in MME_COGNITION:
            pairs.setdefault((answer.group, answer.image), []).append(position)
    values, images, categories = [], [], []
    for (category, image), positions in pairs.items():
        for first, second in zip(positions[::2], positions[1::2], strict=False):
            pair = scores[[first, second]]
            if np.isfinite(pair).all():
                values.append((pair.mean() + (pair == 1).all()) / 2)
                images.append(image)
                categories.append(category)
    return Units(np.array(values, dtype=float), np.array(images, dtype=str), np.array(categories, dtype=str), 2 * len(values))


# Metrics that are not a plain mean over questions.
UNITS: dict[str, Callable[["Sequence[Answer]", np.ndarray], Units]] = {"mme_perception_score": mme_units}


def _units(answers: "Answers", chosen: "Sequence[Answer]", scores: np.ndarray) -> Units:
    return UNITS.get(answers.metric, question_units)(chosen, scores)


def score_interval(answers: "Answers") -> Estimate:
    """A suite's own score in points with its 95 % interval, clustered by image (`stratified_mean` over the metric's units)."""
    units = _units(answers, answers.answers, np.array([answer.score for answer in answers.answers], dtype=float))
    return stratified_mean(units.values, units.clusters, units.strata).points()


def paired_drop(dense: "Answers", pruned: "Answers") -> Drop:
    """Dense minus pruned score in points on the same questions, with the 95 % interval of the paired difference,
    clustered by image.

    Miller 2024 (arXiv 2411.00640): on paired questions the standard error is that of the
    question-level differences, which is far smaller than that of two independent scores. Each metric is differenced
    in its own units (`UNITS`).

    Raises FitPruneError when the two hold different questions.
    """
    by_id = {answer.doc_id: answer for answer in pruned.answers}
    if dense.suite != pruned.suite or {answer.doc_id for answer in dense.answers} != by_id.keys():
        raise FitPruneError(
            f"cannot pair {len(dense.answers)} dense answers on {dense.suite} "
            f"with {len(pruned.answers)} pruned answers on {pruned.suite}: they are not the same questions"
        )
    before = np.array([answer.score for answer in dense.answers], dtype=float)
    after = np.array([by_id[answer.doc_id].score for answer in dense.answers], dtype=float)
    both = np.isfinite(before) & np.isfinite(after)
    units_before = _units(dense, dense.answers, np.where(both, before, np.nan))
    units_after = _units(dense, dense.answers, np.where(both, after, np.nan))
    estimate = stratified_mean(units_before.values - units_after.values, units_before.clusters, units_before.strata).points()
    return Drop(
        drop=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=units_before.questions,
        clusters=estimate.clusters,
        standard_error=estimate.standard_error,
        unscored=sum(
            not scored for scored, answer in zip(both, dense.answers, strict=True) if answer.group not in MME_COGNITION
        ),
    )


def verdict(drop: Drop, max_drop: float) -> Verdict:
    """Fail when the drop is above `max_drop` points with 95 % confidence: when the lower end of its interval is;
    undecided without an interval.
    """
    if not math.isfinite(drop.low):
        return Verdict.UNDECIDED
    return Verdict.FAIL if drop.low > max_drop else Verdict.PASS
