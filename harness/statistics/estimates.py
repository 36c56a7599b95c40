"""Means of clustered questions, with standard errors and intervals by Student's t."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import stdtrit

from harness.statistics.influence import Influence

CONFIDENCE = 0.95
FEWEST = 5.0  # effective clusters below which nothing is said where some clusters are much larger than others
UNEQUAL = 0.75  # they are, where the effective number is below this share of the number


@dataclass(frozen=True)
class Estimate:
    """A mean and what is known about it: standard error and two-sided 95 % interval, over `n` values in `clusters` clusters;
    where these are pictures, also how much each moves it.
    """

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    clusters: int
    influence: Influence | None = field(default=None, compare=False, repr=False)

    def points(self) -> "Estimate":
        """The same estimate on the scale of 0-100."""
        figures = ("value", "standard_error", "low", "high")
        return replace(self, **{name: 100 * getattr(self, name) for name in figures})


def t_interval(value: float, standard_error: float, freedom: float) -> tuple[float, float]:
    """Two-sided 95 % interval with Student's t at `freedom` degrees of freedom; NaN below one degree.

    The variance is estimated from as many independent pieces as there are clusters, so its uncertainty is that of
    clusters - 1 degrees of freedom (clusters - strata if there are strata), not n - 1: Cameron and Miller, "A
    Practitioner's Guide to Cluster-Robust Inference" (Journal of Human Resources 50(2), 2015). Unequal clusters count
    as their effective number. With many images it is the normal quantile; with few, the normal one is too short.
    """
    if not (freedom >= 1 - 1e-9 and math.isfinite(standard_error)):
        return math.nan, math.nan
    half = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * standard_error
    return value - half, value + half


def effective_number(weights: np.ndarray) -> float:
    """How many equal clusters would give a mean as certain as clusters of these weights: (Σw)² / Σw², the number itself
    where they are equal (Kish, "Survey Sampling", 1965; for cluster-robust errors Carter, Schnepel and Steigerwald 2017,
    Review of Economics and Statistics 99(4)).
    """
    return float(weights.sum() ** 2 / (weights**2).sum()) if weights.any() else 0.0


def too_few(weights: np.ndarray) -> bool:
    """Whether clusters of these weights are too few for an interval: fewer than two, or made so few by a large one among
    them. What that one would be another time, nothing shows.
    """
    return len(weights) < 2 or effective_number(weights) < min(FEWEST, UNEQUAL * len(weights))


def stratified_mean(values: np.ndarray, clusters: np.ndarray, strata: np.ndarray) -> Estimate:
    """The unweighted mean over strata of the stratum means, with its standard error clustered across and within strata.

    Of one stratum it is Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640): the variance of the mean is the sum over
    clusters of the squared sum of residuals, over n². The estimator is linear in the values, so with several the variance
    is that of the clusters' sums of influence, stratum by stratum: Cochran, "Sampling Techniques" (3rd edition, 1977), on
    stratified and on cluster sampling. A large cluster draws the mean towards itself, so each residual is divided by 1 less the
    cluster's share of its stratum: the jackknife, "CR3" (Bell and McCaffrey 2002, Survey Methodology 28(2)); for equal clusters
    the factor G / (G - 1). Where one image occurs in several strata its parts are added before squaring, so that their
    covariance counts. The degrees of freedom are the effective number of clusters less one for each stratum. NaN interval where
    a stratum has one cluster only, and where the clusters are `too_few`.

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
    member = np.zeros((len(stratum_names), len(cluster_names)))
    np.add.at(member, (stratum, cluster), 1)
    counts, weights = (member > 0).sum(1), (member / sizes[:, None]).sum(0)
    if (counts < 2).any():
        return Estimate(value, math.nan, math.nan, math.nan, n, len(cluster_names))
    residuals = np.zeros_like(member)
    np.add.at(residuals, (stratum, cluster), values - means[stratum])
    left = 1 - member / sizes[:, None]
    influence = residuals / left * np.sqrt((counts - 1) / counts)[:, None] / (sizes[:, None] * len(stratum_names))
    moved = influence.sum(0)
    standard_error = float(np.sqrt((moved**2).sum()))
    freedom = math.nan if too_few(weights) else effective_number(weights) - len(stratum_names)
    low, high = t_interval(value, standard_error, freedom)
    return Estimate(value, standard_error, low, high, n, len(cluster_names), Influence.of(cluster_names, moved, 0.0))
