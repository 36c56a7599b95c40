"""A suite's score, and the drop between two sets of answers to the same questions, with their intervals."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fitprune.errors import FitPruneError
from harness.answers import RESAMPLED, Answer, Answers
from harness.statistics.bootstrap import bootstrap_interval, cluster_sums, questions_of, rare_interval
from harness.statistics.estimates import Estimate, stratified_mean
from harness.statistics.influence import Influence
from harness.statistics.metrics import SUMS, UNITS, Sums, Units, question_units, scores_of, taking_part
from harness.statistics.pairs import paired
from harness.statistics.resampled import resampled
from harness.statistics.unseen import unseen_interval, unseen_weight


@dataclass(frozen=True)
class Drop:
    """Score before minus score after, in points, with its 95 % interval, over `n` questions on `clusters` images.

    `unscored` questions had no score in one of the two and take no part. `influence`: how much each image moves it.
    """

    drop: float
    low: float
    high: float
    n: int
    clusters: int
    standard_error: float = math.nan
    unscored: int = 0
    influence: Influence | None = field(default=None, compare=False, repr=False)

    @property
    def half_width(self) -> float:
        """Half the length of the interval, in points."""
        return (self.high - self.low) / 2


def no_drop(answers: Answers) -> Drop:
    """The drop of answers against themselves: no estimate, but nothing, with certainty."""
    if answers.statistic == RESAMPLED:
        return Drop(0.0, 0.0, 0.0, len(answers.answers), len({answer.image for answer in answers.answers}), 0.0)
    units = _units(answers, answers.answers, scores_of(answers))
    return Drop(0.0, 0.0, 0.0, units.questions, len(np.unique(units.clusters)), 0.0)


def score_interval(answers: Answers, ends: bool = True) -> Estimate:
    """A suite's own score in points with its 95 % interval, clustered by image.

    `bounded_mean` over the metric's units, `bounded_sums` of a metric that has none, `resampled` where nothing is known of it.
    ends: whether those of the interval are wanted, which cost the most; else they are those of no few images, or NaN.
    Raises FitPruneError for a score that is no share.
    """
    if answers.statistic == RESAMPLED:
        return resampled(answers.score, answers.replicates, _images(answers), 0.0)
    scores = scores_of(answers)
    if answers.statistic in SUMS:
        sums = SUMS[answers.statistic](answers.answers, scores)
        return bounded_sums(sums, sums.parts.shape[1], ends).points()
    return bounded_mean(_units(answers, answers.answers, scores), 0.0, ends).points()


def paired_drop(before: Answers, after: Answers, ends: bool = True) -> Drop:
    """Score before minus after (dense minus pruned, or a saved run minus this one) in points on the same questions, with the
    95 % interval of the paired difference, clustered by image.

    Miller 2024 (arXiv 2411.00640): on paired questions the standard error is that of the question-level differences, which
    is far smaller than that of two independent scores. Means are differenced in their own units (`UNITS`) and have
    Student's interval; a metric that is no mean (`SUMS`) has the paired cluster bootstrap's, and one of which nothing is known
    that of its own aggregation on halves of the images. All are widened to one that holds where the drop hangs on a few images;
    it is never empty because nothing differed. ends: as `score_interval` has it.

    Raises FitPruneError, by name, where the two are no pair, and for a score that is no share.
    """
    matched = paired(before, after)
    if RESAMPLED in (before.statistic, after.statistic):
        if len(before.replicates) != len(after.replicates):
            raise FitPruneError(
                f"cannot pair answers on {before.suite}: the halves of the questions were scored for one of the two only"
            )
        points = (np.array(before.replicates) - np.array(after.replicates)).tolist()
        found = resampled(before.score - after.score, points, _images(before), -100.0)
        return Drop(found.value, found.low, found.high, found.n, found.clusters, found.standard_error)
    first, second = scores_of(before), scores_of(matched)
    both = np.isfinite(first) & np.isfinite(second)
    first, second = np.where(both, first, np.nan), np.where(both, second, np.nan)
    unscored = int((taking_part(before.answers, first) & ~both).sum())
    if before.statistic in SUMS:
        of = SUMS[before.statistic]
        found = _difference(of(before.answers, first), of(matched.answers, second), ends)
        questions = found.n
    else:
        old, new = _units(before, before.answers, first), _units(before, before.answers, second)
        found = bounded_mean(Units(old.values - new.values, old.clusters, old.strata, old.questions), -1.0, ends)
        questions = old.questions
    found = found.points()
    figures = found.value, found.low, found.high
    return Drop(*figures, questions, found.clusters, found.standard_error, unscored, found.influence)


def image_drops(before: Answers, after: Answers) -> np.ndarray:
    """Per image, the mean over its questions of score before minus score after; unscored questions take no part.

    The independent draws of a sequential run: every image counts once, however many questions it has. Raises as
    `paired_drop` does.
    """
    values = scores_of(before) - scores_of(paired(before, after))
    scored = np.isfinite(values)
    names = np.array([answer.image for answer in before.answers])[scored]
    sums = cluster_sums(np.stack([values[scored], np.ones(int(scored.sum()))], 1), names)
    return sums[:, 0] / sums[:, 1]


def bounded_mean(units: Units, least: float, ends: bool = True) -> Estimate:
    """`stratified_mean` of values from `least` to 1, with `ends` its interval widened to one that also holds where only a few
    images differ from the rest.
    """
    mean = stratified_mean(units.values, units.clusters, units.strata)
    if not math.isfinite(mean.low):
        return mean
    _, stratum, sizes = np.unique(units.strata, return_inverse=True, return_counts=True)
    # Strata count alike: each value by its weight in the mean, 1 where there is one stratum.
    weights = len(stratum) / len(sizes) / sizes[stratum]
    by_image = cluster_sums(np.stack([units.values * weights, weights], 1), units.clusters)
    # The image that was not drawn lies in the stratum where an image weighs most.
    unseen = max(
        unseen_weight(cluster_sums(weights[stratum == one, None], units.clusters[stratum == one])[:, 0])
        for one in range(len(sizes))
    )
    low, high = unseen_interval(by_image[:, 0], by_image[:, 1], least, unseen) if ends else (1.0, least)
    low, high = max(least, min(low, mean.low)), min(1.0, max(high, mean.high))
    influence = mean.influence and dataclasses.replace(mean.influence, unseen=unseen / len(weights))
    return dataclasses.replace(mean, low=low, high=high, influence=influence)


def bounded_sums(sums: Sums, width: int, ends: bool = True) -> Estimate:
    """A metric of sums over questions by the cluster bootstrap, widened in the same way. Its ends are the metric's values under
    other weights, so they lie in its range; NaN where they are not wanted.

    width: how many parts each model has; with two models the statistic is the first's less the second's.
    """
    numbers = questions_of(sums.clusters)
    value = float(sums.metric(sums.parts.sum(0))) if len(numbers) else math.nan
    low, high = bootstrap_interval(sums.parts, sums.clusters, sums.metric) if ends else (math.nan, math.nan)
    if math.isfinite(low):
        right, wrong = (np.eye(width)[place] * unseen_weight(numbers) for place in (0, 1))
        paired = sums.parts.shape[1] > width
        worst = (np.concatenate([wrong, right]), np.concatenate([right, wrong])) if paired else (wrong, right)
        rare = rare_interval(sums.parts, sums.clusters, sums.metric, worst)
        low, high = min(low, rare[0]), max(high, rare[1])
    return Estimate(value, math.nan, low, high, len(sums.parts), len(numbers))


def _difference(old: Sums, new: Sums, ends: bool) -> Estimate:
    """The drop of a metric of sums, the same questions under the same weights."""
    width = old.parts.shape[1]

    def statistic(totals: np.ndarray) -> np.ndarray:
        return old.metric(totals[..., :width]) - new.metric(totals[..., width:])

    return bounded_sums(Sums(np.concatenate([old.parts, new.parts], 1), old.clusters, statistic), width, ends)


def _units(answers: Answers, chosen: Sequence[Answer], scores: np.ndarray) -> Units:
    return UNITS.get(answers.statistic, question_units)(chosen, scores)


def _images(answers: Answers) -> np.ndarray:
    return np.array([answer.image for answer in answers.answers])
