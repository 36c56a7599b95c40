"""What is promised of intervals and gates, measured in every simulated world."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.statistics import Verdict, certified, significant
from tests.benchmarks.gate_errors import worlds

# Images, shares of them that lose and that gain, chance of each of their 1-6 questions to differ then, runs.
RARE = [(40, 0.02, 0.0, 1.0, 600), (130, 0.02, 0.01, 0.5, 600), (400, 0.01, 0.0, 1.0, 600)]
COMMON = [(40, 0.25, 0.1, 0.8, 2500), (130, 0.2, 0.1, 0.6, 2500), (400, 0.15, 0.1, 0.5, 1200)]
# Of images with two questions that are lost or gained as a whole: (lost, gained).
HANDFULS = [(0.005, 0.0), (0.02, 0.0), (0.02, 0.02), (0.05, 0.01)]
MME_SIZES = [(20,) * 10, (30, 30, 40, 60, 20)]
F1_WORLDS = [(100, 6, 0.05), (20, 6, 0.2)]
# Questions an image, shares of the images that lose and gain, chance of each question then: rare losses only; losses beside
# gains; several questions an image.
MONITORED = [(1, 0.01, 0.0, 1.0), (1, 0.05, 0.03, 1.0), (5, 0.06, 0.02, 0.5), (1, 0.3, 0.2, 1.0)]


@dataclass(frozen=True)
class Promise:
    """A share measured in a world, and the bounds that it is promised to keep."""

    world: str
    what: str
    measured: float
    least: float
    most: float

    @property
    def kept(self) -> bool:
        """Whether it lies within them."""
        return self.least <= self.measured <= self.most


def promises(times: float = 1.0) -> Iterator[Promise]:
    """All of them, with `times` the usual number of runs."""
    yield from _coverage(times)
    yield from _handfuls(times)
    yield from _gates(times)
    yield from _monitored(times)


def _coverage(times: float) -> Iterator[Promise]:
    clustered = {
        "80 images, 1-6 questions": worlds.together(round(1200 * times)),
        "MME's score": worlds.mme_scores(round(1000 * times)),
    }
    for world in F1_WORLDS:
        clustered[f"F1, images {world[0]}, loss {world[2]}"] = worlds.f1_drops(*world, round(600 * times))
    for name, (intervals, truth) in clustered.items():
        yield Promise(name, "coverage", worlds.covered(intervals, truth), 0.93, 0.97)
    for sizes in MME_SIZES:
        linear, resampled, truth = worlds.mme_drops(sizes, round(400 * times))
        name = f"MME's drop, pairs {', '.join(map(str, sizes))}"
        own = worlds.covered(linear, truth)
        yield Promise(name, "coverage", own, 0.93, 0.97)
        yield Promise(name, "coverage of the bootstrap", worlds.covered(resampled, truth), 0.0, own + 0.005)
        narrower = float(np.mean(np.diff(resampled)) / np.mean(np.diff(linear)))
        yield Promise(name, "its width, of the stratified one's", narrower, 0.0, 1.0)


def _handfuls(times: float) -> Iterator[Promise]:
    for images in (30, 60, 400):
        for lost, gained in HANDFULS:
            found, truth = worlds.drops(images, lost, gained, 1.0, round(500 * times), questions=2, seed=3)
            name = f"{images} images, {lost} lose, {gained} gain"
            yield Promise(name, "coverage", float(np.mean([d.low <= truth <= d.high for d in found])), 0.95, 1.0)
            yield Promise(name, "misses above", float(np.mean([d.high < truth for d in found])), 0.0, 0.03)
            yield Promise(name, "misses below", float(np.mean([d.low > truth for d in found])), 0.0, 0.03)


def _gates(times: float) -> Iterator[Promise]:
    for *world, runs in RARE + COMMON:
        found, truth = worlds.drops(*world, round(runs * times))
        name = "{} images, {} lose, {} gain, inside {}".format(*world)
        covered = float(np.mean([drop.low <= truth <= drop.high for drop in found]))
        yield Promise(name, "coverage", covered, 0.93, 0.97 if (*world, runs) in COMMON else 1.0)
        fails = float(np.mean([significant(drop, truth) == Verdict.FAIL for drop in found]))
        passes = float(np.mean([certified(drop, truth) == Verdict.PASS for drop in found]))
        yield Promise(name, "fails at the margin", fails, 0.0, 0.05)
        yield Promise(name, "is certified at the margin", passes, 0.0, 0.05)


def _monitored(times: float) -> Iterator[Promise]:
    for questions, lost, gained, inside in MONITORED:
        draws = worlds.image_draws(round(800 * times), 3000, questions, lost, gained, inside)
        passed, failed = worlds.decided(draws, (lost - gained) * inside)
        name = f"sequential, {questions} questions, {lost} lose, {gained} gain, inside {inside}"
        ever = float((np.isfinite(passed) | np.isfinite(failed)).mean())
        yield Promise(name, "ever misses at the margin", ever, 0.0, 0.05)
