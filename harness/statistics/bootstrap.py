"""Intervals by resampling images, for metrics that are no plain mean over questions."""

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, stdtrit

from harness.statistics.estimates import CONFIDENCE, effective_number, too_few

REPLICATES = 10_000
_CHUNK = 4_000_000  # weights held at a time


def bootstrap_interval(
    parts: np.ndarray, clusters: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[float, float]:
    """Two-sided 95 % interval of a function of sums over questions, clustered by image; NaN where images are `too_few`.

    The Bayesian bootstrap (Rubin 1981, "The Bayesian Bootstrap", Annals of Statistics 9(1)): images, not questions, get
    independent exponential weights, so that no replicate is degenerate; all parts of an image get the same one, which keeps
    pairs together. The percentiles are widened for few effective images: Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap" (arXiv 1411.5279), expanded percentiles.

    parts: (n, k); clusters: (n,) labels; statistic: totals (replicates, k) → (replicates,), homogeneous of degree 0.
    """
    sums, count = cluster_sums(parts, clusters), effective_number(questions_of(clusters))
    if too_few(questions_of(clusters)):
        return float("nan"), float("nan")
    tail = float(ndtr(stdtrit(count - 1, (1 - CONFIDENCE) / 2) * np.sqrt(count / (count - 1))))
    low, high = np.quantile(statistic(weighted_totals(sums, seed)), [tail, 1 - tail])
    return float(low), float(high)


def rare_interval(
    parts: np.ndarray,
    clusters: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    worst: tuple[np.ndarray, np.ndarray],
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval that also holds where no image, or only a few, differ from the rest; NaN without an image.

    The sample is given one image more, as bad as an image can be for the lower end, as good for the upper, and
    reweighted at random. For equal images right or wrong as a whole this is Clopper and Pearson's exact interval (Biometrika
    26, 1934): of G images none of which differs, up to 1 - 0.025^(1/G), about 3.7 / G, may, the "rule of three" (Hanley and
    Lippman-Hand, JAMA 249, 1983) at 97.5 %. For any bounded values it is the bound of Learned-Miller and Thomas 2019
    (arXiv 1905.06208), whose coverage is conjectured, and for a near relative proved (Phan et al. 2021, arXiv 2106.03163).

    worst: the parts (k,) of that image, for the lower and for the upper end. Other arguments as in `bootstrap_interval`.
    """
    sums = cluster_sums(parts, clusters)
    if not len(sums):
        return float("nan"), float("nan")
    totals = weighted_totals(sums, seed)
    # The one weight that the ends hang on is spread evenly over its distribution, not drawn: less noise in the tails.
    extra = -np.log((np.random.default_rng(seed + 1).permutation(len(totals))[:, None] + 0.5) / len(totals))
    ends = [np.quantile(statistic(totals + extra * image), q) for image, q in zip(worst, (0.025, 0.975), strict=True)]
    return float(ends[0]), float(ends[1])


def questions_of(clusters: np.ndarray) -> np.ndarray:
    """How many questions each image has, (G,)."""
    return np.unique(clusters, return_counts=True)[1]


def cluster_sums(parts: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The parts (n, k) added up by image: (G, k)."""
    _, cluster = np.unique(clusters, return_inverse=True)
    count = int(cluster.max()) + 1 if len(cluster) else 0
    return np.stack([np.bincount(cluster, weights=column, minlength=count) for column in parts.T], 1)


def weighted_totals(sums: np.ndarray, seed: int) -> np.ndarray:
    """(replicates, k): the images' sums (G, k) added up under independent exponential weights.

    Images with equal sums share one draw, gamma with as many degrees as there are images: the same distribution, and of
    questions that are right or wrong few kinds exist.
    """
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    random = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(kinds))
    return np.concatenate(
        [
            random.standard_gamma(counts, size=(min(rows, REPLICATES - start), len(kinds))) @ kinds
            for start in range(0, REPLICATES, rows)
        ]
    )
