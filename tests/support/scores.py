"""Answers of given scores and images, and how often intervals hold the truth."""

import math

import numpy as np

from harness.answers import Answer, Answers
from harness.statistics.estimates import stratified_mean


def answers(scores, images, groups=None, suite="gqa", metric="exact_match"):
    groups = groups or [""] * len(scores)
    made = [Answer(i, image, "q", "a", "t", s, g) for i, (s, image, g) in enumerate(zip(scores, images, groups, strict=True))]
    return Answers(suite, metric, math.nan, made, len(made), 0.0, "digest")


def mme(scores, images, groups):
    return answers(scores, images, groups, "mme", "mme_perception_score")


def covered(intervals, truth):
    return np.mean([low <= truth <= high for low, high in intervals])


def clustered_mean(values, clusters):
    """The mean of `stratified_mean` over one stratum."""
    return stratified_mean(values, clusters, np.zeros(len(values), dtype=int))
