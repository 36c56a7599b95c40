"""A suite's score, and the drop between two sets of answers to the same questions, with their intervals."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fitprune.errors import FitPruneError
from harness.statistics.bootstrap import bootstrap_interval, cluster_sums, hangs_on_few, rare_interval
from harness.statistics.estimates import Estimate, stratified_mean
from harness.statistics.metrics import MME_COGNITION, SUMS, UNITS, Sums, Units, mean_sums, question_units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.answers import Answer, Answers


@dataclass(frozen=True)
class Drop:
    """Score before minus score after, in points, with its 95 % interval, over `n` questions on `clusters` images.

    `unscored` questions had no score in one of the two and take no part.
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


def no_drop(answers: "Answers") -> Drop:
    """The drop of answers against themselves: no estimate, but nothing, with certainty."""
    units = _units(answers, answers.answers, _scores(answers.answers))
    return Drop(0.0, 0.0, 0.0, units.questions, len(np.unique(units.clusters)), 0.0)


def score_interval(answers: "Answers") -> Estimate:
    """A suite's own score in points with its 95 % interval, clustered by image.

    `stratified_mean` over the metric's units, or the bootstrap of a metric that has none; widened by `rare_interval` where
    almost all images score alike.
    """
    scores = _scores(answers.answers)
    if answers.metric in SUMS:
        sums = SUMS[answers.metric](answers.answers, scores)
        counted = len(np.unique(sums.clusters))
        value = float(sums.metric(sums.parts.sum(0))) if counted else math.nan
        low, high = bootstrap_interval(sums.parts, sums.clusters, sums.metric)
        return Estimate(value, math.nan, low, high, len(sums.parts), counted).points()
    return bounded_mean(_units(answers, answers.answers, scores), 0.0).points()


def paired_drop(before: "Answers", after: "Answers") -> Drop:
    """Score before minus after (dense minus pruned, or a saved run minus this one) in points on the same questions, with the
    95 % interval of the paired difference, clustered by image.

    Miller 2024 (arXiv 2411.00640): on paired questions the standard error is that of the question-level differences, which
    is far smaller than that of two independent scores. Means are differenced in their own units (`UNITS`) and have
    Student's interval; a metric that is no mean (`SUMS`) has the paired cluster bootstrap's. Where only a few images differ,
    neither holds and the interval is widened by `rare_interval`; it is never empty because nothing differed.

    Raises FitPruneError when the two hold different questions.
    """
    by_id = {answer.doc_id: answer for answer in after.answers}
    if before.suite != after.suite or {answer.doc_id for answer in before.answers} != by_id.keys():
        raise FitPruneError(
            f"cannot pair {len(before.answers)} answers on {before.suite} "
            f"with {len(after.answers)} on {after.suite}: they are not the same questions"
        )
    matched = [by_id[answer.doc_id] for answer in before.answers]
    first, second = _scores(before.answers), _scores(matched)
    both = np.isfinite(first) & np.isfinite(second)
    unscored = sum(not scored for scored, a in zip(both, before.answers, strict=True) if a.group not in MME_COGNITION)
    first, second = np.where(both, first, np.nan), np.where(both, second, np.nan)
    if before.metric in SUMS:
        of = SUMS[before.metric]
        return _bootstrap_drop(of(before.answers, first), of(matched, second), unscored)
    old, new = _units(before, before.answers, first), _units(before, before.answers, second)
    found = bounded_mean(Units(old.values - new.values, old.clusters, old.strata, old.questions), -1.0).points()
    return Drop(found.value, found.low, found.high, old.questions, found.clusters, found.standard_error, unscored)


def bounded_mean(units: Units, least: float) -> Estimate:
    """`stratified_mean` of values from `least` to 1, with an interval that is right for few differing images too."""
    mean = stratified_mean(units.values, units.clusters, units.strata)
    if mean.clusters < 2 or not math.isfinite(mean.standard_error):
        return mean
    sums = mean_sums(units)
    by_image = cluster_sums(sums.parts, sums.clusters)
    strata = by_image.shape[1] // 2
    totals, numbers = by_image[:, :strata].sum(1), by_image[:, strata:]
    if not hangs_on_few(totals / numbers.sum(1)):
        return mean
    # The image that was not drawn lies in the stratum where an image weighs most.
    images = (numbers > 0).sum(0)
    number = np.where(np.arange(strata) == images.argmin(), numbers.sum(0) / images, 0.0)
    worst = np.concatenate([least * number, number]), np.concatenate([number, number])
    low, high = rare_interval(sums.parts, sums.clusters, sums.metric, worst)
    return Estimate(
        mean.value, mean.standard_error, max(least, min(low, mean.low)), min(1.0, max(high, mean.high)), mean.n, mean.clusters
    )


def _bootstrap_drop(old: Sums, new: Sums, unscored: int) -> Drop:
    """The drop of a metric of sums, by the paired cluster bootstrap."""
    width, count = old.parts.shape[1], len(np.unique(old.clusters))
    if count < 2:
        return Drop(math.nan, math.nan, math.nan, len(old.parts), count, math.nan, unscored)
    parts = np.concatenate([old.parts, new.parts], 1)

    def statistic(totals: np.ndarray) -> np.ndarray:
        return old.metric(totals[..., :width]) - new.metric(totals[..., width:])

    low, high = bootstrap_interval(parts, old.clusters, statistic)
    if hangs_on_few(np.abs(cluster_sums(old.parts - new.parts, old.clusters)).sum(1)):
        right, wrong = (np.eye(width)[place] * len(parts) / count for place in (0, 1))
        worst = np.concatenate([wrong, right]), np.concatenate([right, wrong])
        rare = rare_interval(parts, old.clusters, statistic, worst)
        low, high = min(low, rare[0]), max(high, rare[1])
    value = float(statistic(parts.sum(0)))
    return Drop(100 * value, 100 * low, 100 * high, len(parts), count, math.nan, unscored)


def _scores(answers: "Sequence[Answer]") -> np.ndarray:
    return np.array([answer.score for answer in answers], dtype=float)


def _units(answers: "Answers", chosen: "Sequence[Answer]", scores: np.ndarray) -> Units:
    return UNITS.get(answers.metric, question_units)(chosen, scores)
