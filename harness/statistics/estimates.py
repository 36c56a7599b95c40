"""Means of clustered questions, with standard errors and intervals by Student's t."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


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
