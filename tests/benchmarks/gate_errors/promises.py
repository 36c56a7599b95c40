"""What is promised of intervals and gates, measured in every simulated world."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from harness.statistics import Drop, Verdict, certified
from harness.statistics.verdicts import significant
from tests.benchmarks.gate_errors import worlds

# Images, kinds of losses, questions an image, chance of each question of an image that loses, runs.
RARE = [(40, (0.02, 0.0), "1-6", 1.0), (130, (0.02, 0.01), "1-6", 0.5), (400, (0.01, 0.0), "1-6", 1.0)]
COMMON = [
    *((images, (0.2, 0.0), "1", 1.0) for images in (20, 130, 400, 2000)),
    *((images, (0.1, 0.1), "1", 1.0) for images in (20, 400)),
    *((images, (0.2, 0.1), "1-6", 0.6) for images in (20, 130, 2000)),
]
UNEQUAL = [
    *((images, losses, "1-60", 1.0) for images in (20, 40, 400) for losses in ((0.2, 0.1), (0.05, 0.0), (0.5, 0.0))),
    (400, (0.2, 0.1), "1-60", 0.5),
    *(
        (images, losses, "2, one with a third", 1.0)
        for images in (20, 100, 400)
        for losses in ((0.1, 0.05), (0.3, 0.0), (0.5, 0.0))
    ),
    *((images, (0.3, 0.0), "2, one with a seventh", 1.0) for images in (20, 100, 400)),
]
# Of images with a question each: the share that differs, by how much, and the share that is lost.
GRADED = [(20, (0.3, 0.1, 0.03)), (200, (0.3, 0.1, 0.01)), (400, (0.15, 0.1, 0.005)), (2000, (0.3, 0.1, 0.01))]
ANLS = [(images, (0.2, 0.05)) for images in (20, 200, 2000)]
# Of images with two questions that are lost or gained as a whole: (lost, gained).
HANDFULS = [(0.005, 0.0), (0.02, 0.0), (0.02, 0.02), (0.05, 0.01)]
MME_SIZES = [(20,) * 10, (30, 30, 40, 60, 20)]
# An average over three suites on the pictures of one collection: from which picture to which, and how many questions each.
SHARED = {
    "on the same 100 images": [(0, 100, "1"), (0, 100, "2"), (0, 100, "1-6")],
    "on the same 20 images": [(0, 20, "1"), (0, 20, "2"), (0, 20, "1-6")],
    "on 50, 400 and 120 images, in part the same": [(0, 50, "2"), (0, 400, "1-6"), (300, 420, "2")],
    "on 20, 1000 and 20 images, in part the same": [(0, 20, "2"), (0, 1000, "1"), (10, 30, "1")],
}
# Shares of the images that lose and gain, and in which share of them all suites do as one.
GOING_TOGETHER = [((0.2, 0.0), 1.0), ((0.1, 0.1), 0.5), ((0.05, 0.01), 0.5), ((0.02, 0.0), 1.0), ((0.2, 0.0), 0.0)]
F1_WORLDS = [(100, 6, 0.05), (20, 6, 0.2), (400, 6, 0.02)]
ERROR = 0.025  # of either gate at the margin
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
    yield from _gates(times)
    yield from _averages(times)
    yield from _width(times)
    yield from _monitored(times)


def _coverage(times: float) -> Iterator[Promise]:
    clustered = {
        "80 images, 1-6 questions": worlds.together(round(1200 * times)),
        "MME's score": worlds.mme_scores(round(1000 * times)),
    }
    for world in F1_WORLDS[:2]:
        clustered[f"F1, images {world[0]}, loss {world[2]}"] = worlds.f1_drops(*world, round(600 * times))
    for name, (intervals, truth) in clustered.items():
        yield Promise(name, "coverage, not widened", worlds.covered(intervals, truth), 0.93, 0.97)
    for sizes in MME_SIZES:
        linear, resampled, truth = worlds.mme_drops(sizes, round(400 * times))
        name = f"MME's drop, pairs {', '.join(map(str, sizes))}"
        own = worlds.covered(linear, truth)
        yield Promise(name, "coverage, not widened", own, 0.93, 0.97)
        yield Promise(name, "coverage of the bootstrap", worlds.covered(resampled, truth), 0.0, own + 0.005)
        narrower = float(np.mean(np.diff(resampled)) / np.mean(np.diff(linear)))
        yield Promise(name, "its width, of the stratified one's", narrower, 0.0, 1.0)


def at_the_margin(name: str, found: Sequence[Drop], truth: float) -> Iterator[Promise]:
    """Either gate's error where the margin is the true drop, and each error is largest; with three standard errors of it."""
    most = ERROR + 3 * math.sqrt(ERROR * (1 - ERROR) / len(found))
    # A score that must come out as it does is not above itself by what rounding leaves.
    fails = [significant(drop, truth + 1e-9) == Verdict.FAIL for drop in found]
    passes = [certified(drop, truth - 1e-9) == Verdict.PASS for drop in found]
    yield Promise(name, "fails at the margin", float(np.mean(fails)), 0.0, most)
    yield Promise(name, "is certified at the margin", float(np.mean(passes)), 0.0, most)


def _gates(times: float) -> Iterator[Promise]:
    runs = round(1500 * times)
    handfuls = [(images, losses, "2", 1.0) for images in (30, 60, 400) for losses in HANDFULS]
    for images, losses, sizes, inside in [*RARE, *handfuls, *COMMON, *UNEQUAL]:
        kinds, truth = worlds.ternary(*losses)
        name = f"{images} images of {sizes} questions, {losses[0]} lose, {losses[1]} gain, inside {inside}"
        yield from at_the_margin(name, worlds.drops_of(images, kinds, runs, sizes, inside), 100 * truth * inside)
    for of, known in ((worlds.graded, GRADED), (worlds.anls, ANLS)):
        for images, shares in known:
            kinds, truth = of(*shares)
            name = f"{images} images, {of.__name__} {', '.join(map(str, shares))}"
            yield from at_the_margin(name, worlds.drops_of(images, kinds, runs), 100 * truth)
    for sizes in [(2,) * 10, *MME_SIZES]:
        for loss in (0.05, 0.3):
            name = f"MME, pairs {', '.join(map(str, sizes))}, loss {loss}"
            yield from at_the_margin(name, *worlds.mme_gated(sizes, loss, runs))
    for world in F1_WORLDS:
        name = f"F1, images {world[0]}, loss {world[2]}"
        yield from at_the_margin(name, *worlds.f1_gated(*world, round(400 * times)))


def _averages(times: float) -> Iterator[Promise]:
    """Of suites that share images; and their width, of that where no answer says which image it is about."""
    for where, suites in SHARED.items():
        for losses, same in GOING_TOGETHER:
            kinds, truth = worlds.ternary(*losses)
            name = f"average of 3 suites {where}: {losses[0]} lose, {losses[1]} gain, {same} as one"
            found = worlds.averaged(suites, kinds, round(1000 * times), same)
            yield from at_the_margin(name, found, 100 * truth)
            bound = worlds.averaged(suites, kinds, round(40 * times), same, known=False)
            narrower = np.mean([drop.half_width for drop in found]) / np.mean([drop.half_width for drop in bound])
            # Where half of the images go as one, the correlation is at most a half, and the half-widths' sum too wide.
            most = 0.9 if same < 1 and losses[0] >= 0.1 else 1.01
            yield Promise(name, "width, of added half-widths", float(narrower), 0.0, most)


def _width(times: float) -> Iterator[Promise]:
    """What the promise costs where a fifth of the images flip: over Student's interval, which does not keep it."""
    for images in (250, 400, 2000):
        for sizes in ("1", "1-6"):
            found = worlds.drops_of(images, worlds.ternary(0.1, 0.1)[0], round(60 * times), sizes)
            plain = [2 * stdtrit(images - 1, 0.975) * drop.standard_error for drop in found]
            wider = float(np.sum([2 * drop.half_width for drop in found]) / np.sum(plain))
            yield Promise(f"{images} images of {sizes} questions, a fifth flip", "width, of Student's", wider, 1.0, 1.08)


def _monitored(times: float) -> Iterator[Promise]:
    for questions, lost, gained, inside in MONITORED:
        draws = worlds.image_draws(round(800 * times), 3000, questions, lost, gained, inside)
        passed, failed = worlds.decided(draws, (lost - gained) * inside)
        name = f"sequential, {questions} questions, {lost} lose, {gained} gain, inside {inside}"
        ever = float((np.isfinite(passed) | np.isfinite(failed)).mean())
        yield Promise(name, "ever misses at the margin", ever, 0.0, 0.05)
