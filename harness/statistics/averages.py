"""The half-width of an average over suites, some of which ask about the same images."""

import math
from collections.abc import Mapping

# Suites whose images are one collection's: POPE's, VQAv2's and most of MME's are COCO val2014.
COLLECTIONS = {"pope": "COCO", "vqav2": "COCO", "mme": "COCO"}
MINI = "mini"  # the embedded data: each suite has drawn images of its own


def average_half_width(halves: Mapping[str, float], data: str) -> float:
    """Half-width of the unweighted mean over suites, of each suite's own; NaN if one is NaN.

    Errors of suites on different images are independent: the root of the summed squares. Suites on one collection are one
    cluster: their errors may go together, by how much nothing here says (copies of an image differ from suite to suite), and
    no correlation makes the error of a sum larger than the sum of the errors (Cauchy and Schwarz).
    """
    clusters: dict[str, float] = {}
    for suite, half in halves.items():
        name = suite if data == MINI else COLLECTIONS.get(suite, suite)
        clusters[name] = clusters.get(name, 0.0) + half
    return math.hypot(*clusters.values()) / len(halves)
