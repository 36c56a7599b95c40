"""Interval for a mean that allows for an image like none that was drawn: what any mean of bounded values may hide."""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

from harness.statistics.estimates import CONFIDENCE, effective_number

QUANTILE = float(ndtri(0.5 + CONFIDENCE / 2))
FAR = 20.0  # normal scores beyond which only the sign matters


def unseen_interval(totals: np.ndarray, numbers: np.ndarray, least: float, weight: float) -> tuple[float, float]:
    """95 % interval for the mean of values from `least` to 1, which holds however few of the images differ from the rest.

    What `rare_interval` draws for any metric, worked out for a mean over questions: the sample is given one image of
    `weight` questions more, all of them `least` for the lower end and 1 for the upper, and its images get independent
    exponential weights. The end is the 2.5 % quantile of the weighted mean: Learned-Miller and Thomas 2019 (arXiv
    1905.06208), for equal images right or wrong as a whole Clopper and Pearson's exact interval. That the mean is at most m
    is that the weighted sum of totals less m times numbers is at most 0, and the chance of that is Barndorff-Nielsen's r*
    (Biometrika 73(2), 1986), whose error is a hundredth of the chance where no image differs, and less elsewhere.

    totals, numbers: (G,), an image's values added up, and how many they are.
    """
    kinds, counts = np.unique(np.round(np.stack([totals, numbers], 1), 9), axis=0, return_counts=True)
    counts = np.append(counts, 1)
    ends = []
    for extreme, quantile in ((least, -QUANTILE), (1.0, QUANTILE)):
        total, number = np.append(kinds[:, 0], extreme * weight), np.append(kinds[:, 1], weight)

        def missing(mean: float, total: np.ndarray = total, number: np.ndarray = number, quantile: float = quantile) -> float:
            return max(-FAR, min(FAR, _normal_score(total - mean * number, counts) - quantile))

        centre = float((counts * total).sum() / (counts * number).sum())
        beyond = (1 - 1e-9) * extreme + 1e-9 * centre
        # No quantile lies between: all images are at the extreme themselves.
        reached = abs(centre - extreme) > 1e-9 and np.sign(missing(beyond)) == np.sign(quantile)
        ends.append(brentq(missing, *sorted((centre, beyond)), xtol=1e-7) if reached else extreme)
    return ends[0], ends[1]


def unseen_weight(numbers: np.ndarray) -> float:
    """Questions of the image that was not drawn, of the numbers (G,) that the others have.

    Between the mean over images and the mean over questions, which is larger the less equal images are: their geometric
    mean. With the former, images of which one has a third of the questions are covered too rarely.
    """
    return float(numbers.sum() / math.sqrt(len(numbers) * effective_number(numbers)))


def _normal_score(slopes: np.ndarray, counts: np.ndarray) -> float:
    """The normal quantile of the chance that slopes (k,), each times `counts` exponential weights, add up to 0 or less.

    The saddlepoint is where the weights' cumulant function, - Σ counts log(1 - s slopes), is least.
    """
    low, high = (
        1 / float(end) if end else math.copysign(math.inf, sign) for end, sign in ((slopes.min(), -1), (slopes.max(), 1))
    )
    if low > 0:
        return -math.inf
    if high < 0:
        return math.inf
    point, left, right = 0.0, low, high
    for _ in range(100):
        parts = slopes / (1 - point * slopes)
        gradient, curvature = float(counts @ parts), float(counts @ parts**2)
        left, right = (left, point) if gradient > 0 else (point, right)
        step = point - gradient / curvature
        step = step if left < step < right else (left + right) / 2
        if abs(step - point) <= 1e-9 * abs(step):
            break
        point = step
    cumulant = -float(counts @ np.log1p(-point * slopes))
    root = math.copysign(math.sqrt(max(0.0, -2 * cumulant)), point)
    scaled = point * math.sqrt(curvature)
    return root + math.log(scaled / root) / root if abs(root) > 1e-4 else root
