"""The half-width of an average over suites, some of which ask about the same images."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from harness.statistics.influence import Influence

# Suites whose images are one collection's: POPE's, VQAv2's and most of MME's are COCO val2014.
COLLECTIONS = {"pope": "COCO", "vqav2": "COCO", "mme": "COCO"}
MINI = "mini"  # the embedded data: each suite has drawn images of its own


def average_half_width(halves: Sequence[float], correlation: np.ndarray) -> float:
    """Half-width of the unweighted mean over suites, of each suite's own; NaN if one is NaN.

    The suites' own distances from figure to end take the place of standard errors, so that what protects each of them (few
    effective images, the image that was not drawn) protects the mean: the "method of variance estimates recovery" for
    dependent estimates (Zou 2008, Statistics in Medicine 27(10)).

    correlation: (suites, suites), of their errors; see `correlations`.
    """
    sides = np.array(halves)
    # Of few images it may come out below none by what rounding leaves; NaN stays NaN.
    return math.sqrt(np.maximum(0.0, sides @ correlation @ sides)) / len(sides)


def correlations(influences: Mapping[str, Influence | None], data: str) -> np.ndarray:
    """The correlations (suites, suites) of the suites' errors, of what each image of theirs moves.

    An image is one draw, in however many suites it is: what it moves is added up over suites before it is squared, as within
    one suite (`stratified_mean`). Suites that share images also share the one that was not drawn, which may be lost in
    all of them: without it, suites in which hardly an image differed would pass for independent ones. Suites on one
    collection of which nothing shows which images they share (`unproven`) are taken to err together, which is the most
    that any correlation does (Cauchy and Schwarz). All others are independent.
    """
    moved, linked = _by_picture(influences)
    unseen = np.array([influence.unseen if influence else 0.0 for influence in influences.values()])
    shared = moved @ moved.T + linked * np.outer(unseen, unseen)
    scale = np.sqrt(np.diag(shared))
    found = np.divide(shared, np.outer(scale, scale), out=np.zeros_like(shared), where=np.outer(scale, scale) > 0)
    found[_unproven(list(influences), linked, data)] = 1.0
    np.fill_diagonal(found, 1.0)
    return found


def sharing(influences: Mapping[str, Influence | None]) -> list[str]:
    """The suites that share images with another, as their digests show."""
    linked = _by_picture(influences)[1]
    return [suite for suite, others in zip(influences, linked, strict=True) if others.sum() > 1]


def unproven(influences: Mapping[str, Influence | None], data: str) -> list[str]:
    """The suites on one collection of which nothing shows which images they share: no digests, or none in common, since
    copies of an image may have been encoded anew.
    """
    pairs = _unproven(list(influences), _by_picture(influences)[1], data)
    return [suite for suite, others in zip(influences, pairs, strict=True) if others.any()]


def _by_picture(influences: Mapping[str, Influence | None]) -> tuple[np.ndarray, np.ndarray]:
    """What each picture moves in each suite (suites, pictures), and which suites are linked by pictures, if through others."""
    known = {row: influence for row, influence in enumerate(influences.values()) if influence is not None}
    pictures = np.unique(np.concatenate([np.empty(0, np.uint64), *(influence.pictures for influence in known.values())]))
    moved = np.zeros((len(influences), len(pictures)))
    there = np.zeros_like(moved)
    for row, influence in known.items():
        places = np.searchsorted(pictures, influence.pictures)
        moved[row, places], there[row, places] = influence.values, 1.0
    steps = (there @ there.T > 0) | np.eye(len(influences), dtype=bool)
    return moved, np.linalg.matrix_power(steps.astype(float), len(influences)) > 0


def _unproven(suites: Sequence[str], linked: np.ndarray, data: str) -> np.ndarray:
    """(suites, suites): two of one collection that no picture links."""
    names = [suite if data == MINI else COLLECTIONS.get(suite, suite) for suite in suites]
    return np.array([[one == other for other in names] for one in names]) & ~linked
