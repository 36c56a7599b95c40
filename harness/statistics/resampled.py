"""Intervals for a score of which nothing is known but what lmms-eval's own aggregation gives of some of the questions."""

from collections.abc import Sequence

import numpy as np

from harness.statistics.bootstrap import questions_of
from harness.statistics.estimates import CONFIDENCE, Estimate, effective_number, t_interval, too_few
from harness.statistics.unseen import unseen_weight

HALVES = 200
_DRAWN = 50  # weights of the image that was not drawn, for each half


def half_samples(images: Sequence[str], seed: int = 0) -> list[np.ndarray]:
    """Places of the questions about half of the images, drawn without replacement, `HALVES` times; each ascending.

    The paired cluster bootstrap of a function of samples that nothing is known of: images, not questions, are drawn, and for
    equal images and seed the same ones. Half of the images without replacement vary around all of them as all of them do around
    the truth (the delete-d jackknife at half: Shao and Wu 1989, Annals of Statistics 17(3)), and no question comes twice:
    aggregations find samples by their ids, or put pairs of them together.
    """
    _, cluster = np.unique(np.asarray(images), return_inverse=True)
    count = int(cluster.max()) + 1 if len(cluster) else 0
    random = np.random.default_rng(seed)
    halves = []
    for _ in range(HALVES):
        chosen = np.zeros(count, dtype=bool)
        chosen[random.permutation(count)[: (count + 1) // 2]] = True
        halves.append(np.flatnonzero(chosen[cluster]))
    return halves


def resampled(value: float, replicates: Sequence[float], images: np.ndarray, least: float) -> Estimate:
    """A score or a drop in points with its 95 % interval, of its values on `half_samples`.

    Student's interval with the spread of the halves, widened, as all intervals here, by an image more that is as bad as one can
    be for the lower end and as good for the upper, in random weights (`rare_interval`): of equal images none of which differs,
    up to 1 - 0.025^(1/G) may. How much an image weighs in the score is not known: it is taken for its share of the questions.
    NaN where images are too few, or halves have no score.

    images: (n,) names; least: the least that the figure can be, in points; the largest is 100.
    """
    numbers, points = questions_of(images), np.asarray(replicates, dtype=float)
    drawn, count = points[np.isfinite(points)], effective_number(questions_of(images))
    if too_few(numbers) or len(drawn) < HALVES / 2:
        return Estimate(value, float("nan"), float("nan"), float("nan"), len(images), len(numbers))
    # An odd number of images leaves halves a little too large.
    total, half = len(numbers), (len(numbers) + 1) // 2
    standard_error = float(drawn.std(ddof=1) * np.sqrt(half / (total - half)))
    low, high = t_interval(value, standard_error, count - 1)
    random = np.random.default_rng(1)
    weight = random.standard_exponential(len(drawn) * _DRAWN) * unseen_weight(numbers) / (len(images) / len(numbers))
    share = weight / (weight + random.standard_gamma(len(numbers), len(weight)))
    around = np.repeat(value + (drawn - drawn.mean()) * np.sqrt(half / (total - half)), _DRAWN)
    tail = (1 - CONFIDENCE) / 2
    low = min(low, float(np.quantile((1 - share) * around + share * least, tail)))
    high = max(high, float(np.quantile((1 - share) * around + share * 100, 1 - tail)))
    return Estimate(value, standard_error, max(least, low), min(100.0, high), len(images), len(numbers))
