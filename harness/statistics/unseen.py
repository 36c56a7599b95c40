"""Interval for a mean that allows for an image like none that was drawn: what any mean of bounded values may hide."""

import math
from collections.abc import Callable

import numpy as np
from scipy.special import ndtri

from harness.statistics.estimates import CONFIDENCE, effective_number

QUANTILE = float(ndtri(0.5 + CONFIDENCE / 2))


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
        score = _Score(np.append(kinds[:, 0], extreme * weight), np.append(kinds[:, 1], weight), counts)

        def missing(mean: float, score: _Score = score, quantile: float = quantile) -> tuple[float, float]:
            value, slope = score.at(mean)
            return value - quantile, slope

        if abs(score.centre - extreme) > 1e-9:
            left, right = sorted((score.centre, extreme))
            ends.append(_crossing(missing, score.nearly(quantile), left, right, least=1e-8))
        else:  # all images are at the extreme themselves
            ends.append(extreme)
    return ends[0], ends[1]


def unseen_weight(numbers: np.ndarray) -> float:
    """Questions of the image that was not drawn, of the numbers (G,) that the others have.

    Between the mean over images and the mean over questions, which is larger the less equal images are: their geometric
    mean. With the former, images of which one has a third of the questions are covered too rarely.
    """
    return float(numbers.sum() / math.sqrt(len(numbers) * effective_number(numbers)))


class _Score:
    """The normal quantile of the chance that a weighted mean is at most some mean: that totals less the mean times numbers
    (k,), each times `counts` exponential weights, add up to 0 or less.

    The saddlepoint is where the weights' cumulant function, - Σ counts log(1 - s slopes), is least. From one mean to the next
    it moves little, so the search for it begins where the last one ended.
    """

    def __init__(self, totals: np.ndarray, numbers: np.ndarray, counts: np.ndarray) -> None:
        self.totals, self.numbers, self.counts, self.share = totals, numbers, counts, 0.0
        self.centre = float(counts @ totals / (counts @ numbers))

    def nearly(self, quantile: float) -> float:
        """The mean that has this quantile, if all were normal."""
        slopes = self.totals - self.centre * self.numbers
        return self.centre + quantile * math.sqrt(self.counts @ slopes**2) / float(self.counts @ self.numbers)

    def at(self, mean: float) -> tuple[float, float]:
        """(the quantile, about how fast it rises with the mean)."""
        counts, slopes = self.counts, self.totals - mean * self.numbers
        low, high = (
            1 / float(end) if end else math.copysign(math.inf, sign) for end, sign in ((slopes.min(), -1), (slopes.max(), 1))
        )
        if low > 0 or high < 0:
            return (-math.inf if low > 0 else math.inf), math.nan

        def gradient(point: float) -> tuple[float, float]:
            parts = slopes / (1 - point * slopes)
            return float(counts @ parts), float(counts @ parts**2)

        point = _crossing(gradient, abs(self.share) * (high if self.share > 0 else low), low, high, relative=1e-9)
        self.share = point / high if point > 0 else -point / low
        left = 1 - point * slopes
        cumulant, curvature = -float(counts @ np.log(left)), gradient(point)[1]
        root = math.copysign(math.sqrt(max(0.0, -2 * cumulant)), point)
        scaled, moved = point * math.sqrt(curvature), float(counts @ (self.numbers / left))
        if abs(root) <= 1e-4:
            return root, moved / math.sqrt(curvature)
        return root + math.log(scaled / root) / root, moved * point / root


def _crossing(
    of: Callable[[float], tuple[float, float]],
    point: float,
    left: float,
    right: float,
    least: float = 0.0,
    relative: float = 0.0,
) -> float:
    """Where `of`, a rising function that also gives its slope, is 0 between left and right: Newton's method, by halves where it
    leaves what is known. It ends with a step of `least`, or of a `relative` share of the point.
    """
    point = point if left < point < right else 0.0 if left < 0 < right else (left + right) / 2
    for _ in range(100):
        value, slope = of(point)
        left, right = (left, point) if value > 0 else (point, right)
        step = point - value / slope
        step = step if left < step < right else (left + right) / 2
        if abs(step - point) <= max(least, relative * abs(step)):
            break
        point = step
    return point
