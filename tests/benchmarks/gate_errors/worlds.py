"""Simulated worlds whose true drop is known, and the intervals of many runs in them. The tests hold one of each kind."""

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from unittest.mock import patch

import numpy as np

from harness.bench.stretches import stretches
from harness.statistics import Drop, bootstrap
from harness.statistics.averages import COLLECTIONS
from harness.statistics.betting import DECIDES, STAKES
from harness.statistics.bootstrap import bootstrap_interval
from harness.statistics.drops import bounded_mean, bounded_sums
from harness.statistics.estimates import stratified_mean
from harness.statistics.metrics import Sums, Units, f1
from reports.table.rivals import Edge, mean_edge

Intervals = list[tuple[float, float]]
Random = np.random.Generator
Sizes = Callable[[Random, int], np.ndarray]
"""How many questions each of so many images has."""
Kinds = Callable[[Random, int], np.ndarray]
"""What the questions of each of so many images lose."""

SIZES: dict[str, Sizes] = {
    "1": lambda rng, images: np.ones(images, dtype=int),
    "2": lambda rng, images: np.full(images, 2),
    "1-6": lambda rng, images: rng.integers(1, 7, images),
    "1-60": lambda rng, images: rng.integers(1, 61, images),
    "2, one with a third": lambda rng, images: np.r_[images - 1, np.full(images - 1, 2)],
    "2, one with a seventh": lambda rng, images: np.r_[round((images - 1) / 3), np.full(images - 1, 2)],
}


def ternary(lost: float, gained: float) -> tuple[Kinds, float]:
    """Images that lose or gain as a whole, with these chances; and the mean of what is lost."""
    return lambda rng, images: rng.choice([0.0, 1.0, -1.0], images, p=[1 - lost - gained, lost, gained]), lost - gained


def graded(differ: float, step: float, lost: float) -> tuple[Kinds, float]:
    """Scores of which many differ a little, either way, and a few are lost: VQA accuracy."""

    def kinds(rng: Random, images: int) -> np.ndarray:
        chance = rng.random(images)
        little = np.where(chance < lost + differ, rng.choice([-step, step], images), 0.0)
        return np.where(chance < lost, 1.0, little)

    return kinds, lost


def anls(lost: float, gained: float) -> tuple[Kinds, float]:
    """Continuous scores, most of which differ by little: Beta(1/2, 2) of a score is lost, or gained."""
    return lambda rng, images: ternary(lost, gained)[0](rng, images) * rng.beta(0.5, 2, images), (lost - gained) / 5


def drops_of(images: int, kinds: Kinds, runs: int, sizes: str = "1", inside: float = 1.0, seed: int = 0) -> list[Drop]:
    """Runs over images of these sizes and losses, each question lost with chance `inside` where its image is; in points."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(runs):
        kind = kinds(rng, images)
        image = np.repeat(np.arange(images), SIZES[sizes](rng, images))
        values = kind[image] * (rng.random(len(image)) < inside)
        found.append(drop_of(Units(values, image, np.zeros(len(values), dtype=int), len(values))))
    return found


def drop_of(units: Units) -> Drop:
    """The drop in points of differences (n,)."""
    mean = bounded_mean(units, -1.0).points()
    return Drop(mean.value, mean.low, mean.high, mean.n, mean.clusters, mean.standard_error)


def averaged(
    suites: Sequence[tuple[int, int, str]], kinds: Kinds, runs: int, same: float, inside: float = 1.0, known: bool = True
) -> list[Drop]:
    """Runs of an average over suites that ask about the pictures of one collection, each about those from one number to
    another, so many questions each; in points. What becomes of a picture is the same in all suites with chance `same`, else
    each suite's own. With `known` False no answer says which picture it is about.
    """
    rng, found = np.random.default_rng(9), []
    pictures = np.array([f"{number:016x}" if known else str(number) for number in range(max(end for _, end, _ in suites))])
    for _ in range(runs):
        common, edges = kinds(rng, len(pictures)), {}
        for suite, (start, end, sizes) in zip(COLLECTIONS, suites, strict=True):
            kind = np.where(rng.random(end - start) < same, common[start:end], kinds(rng, end - start))
            image = np.repeat(np.arange(end - start), SIZES[sizes](rng, end - start))
            values = kind[image] * (rng.random(len(image)) < inside)
            units = Units(values, pictures[start + image], np.zeros(len(values), dtype=int), len(values))
            mean = bounded_mean(units, -1.0).points()
            edges[suite] = Edge(mean.value, mean.low, mean.high, mean.influence)
        edge = mean_edge(edges, "hub")
        found.append(Drop(edge.points, edge.low, edge.high, 0, len(pictures)))
    return found


@cache
def drops(
    images: int, lost: float, gained: float, inside: float, runs: int, sizes: str = "1-6", seed: int = 0
) -> tuple[list[Drop], float]:
    """Runs in which an image loses or gains with a small chance, and then each of its questions with chance `inside`; and the
    true drop in points.
    """
    kinds, truth = ternary(lost, gained)
    return drops_of(images, kinds, runs, sizes, inside, seed), 100 * truth * inside


def mean_sums(units: Units) -> Sums:
    """The unweighted mean over strata of the stratum means, as a function of sums: per stratum its values' and their number."""
    names, stratum = np.unique(units.strata, return_inverse=True)
    member = (stratum[:, None] == np.arange(len(names))).astype(float)
    parts = np.concatenate([units.values[:, None] * member, member], 1)
    return Sums(parts, units.clusters, lambda totals: np.mean(totals[..., : len(names)] / totals[..., len(names) :], axis=-1))


def covered(intervals: Sequence[tuple[float, float]], truth: float) -> float:
    """The share of the intervals that hold the truth."""
    return float(np.mean([low <= truth <= high for low, high in intervals]))


def together(runs: int) -> tuple[Intervals, float]:
    """Suites of 80 images with 1-6 questions, right or wrong together."""
    rng, intervals = np.random.default_rng(1), []
    for _ in range(runs):
        sizes = rng.integers(1, 7, 80)
        easy, fragile = rng.beta(2, 1, 80), rng.beta(1, 4, 80)  # shared by the questions of an image
        image = np.repeat(np.arange(80), sizes)
        before = rng.random(len(image)) < easy[image]
        after = before & (rng.random(len(image)) >= fragile[image])
        estimate = stratified_mean(before.astype(float) - after, image, np.zeros(len(image), dtype=int))
        intervals.append((estimate.low, estimate.high))
    return intervals, (2 / 3) * (1 / 5)


def mme_scores(runs: int) -> tuple[Intervals, float]:
    """MMEs of five unequal categories whose pairs of answers hang together."""
    rng, intervals = np.random.default_rng(3), []
    categories = np.repeat(np.arange(5), [30, 30, 40, 60, 20])
    shares = (0.9, 0.6, 0.7, 0.8, 0.75)
    levels = np.array(shares)[categories]
    for _ in range(runs):
        first = rng.random(180) < levels
        same = rng.random(180) < 0.5
        second = np.where(same, first, rng.random(180) < levels)
        values = ((first.astype(float) + second) / 2 + (first & second)) / 2
        estimate = stratified_mean(values, np.arange(180), categories)
        intervals.append((estimate.low, estimate.high))
    return intervals, float(np.mean([(p + p * (0.5 + 0.5 * p)) / 2 for p in shares]))


def _mme_run(sizes: Sequence[int], rng: Random, loss: float) -> Units:
    category = np.repeat(np.arange(len(sizes)), sizes)
    dense = rng.random((len(category), 2)) < np.linspace(0.6, 0.95, len(sizes))[category, None]
    hit = rng.random(len(category)) < loss * (1 + category % 3) / 2
    pruned = dense & ~(hit[:, None] & (rng.random((len(category), 2)) < 0.7))
    values = ((dense.mean(1) + dense.all(1)) - (pruned.mean(1) + pruned.all(1))) / 2
    return Units(values, np.arange(len(category)), category, 2 * len(category))


def mme_drops(sizes: Sequence[int], runs: int) -> tuple[Intervals, Intervals, float]:
    """Drops of MMEs whose categories have `sizes` pairs: the stratified intervals, and the bootstrap's."""
    rng = np.random.default_rng(4)
    truth = _mme_truth(sizes, rng, 0.3)
    linear, resampled = [], []
    for _ in range(runs):
        units = _mme_run(sizes, rng, 0.3)
        mean, sums = stratified_mean(units.values, units.clusters, units.strata), mean_sums(units)
        linear.append((mean.low, mean.high))
        resampled.append(bootstrap_interval(sums.parts, sums.clusters, sums.metric))
    return linear, resampled, truth


def _mme_truth(sizes: Sequence[int], rng: Random, loss: float) -> float:
    huge = _mme_run([20_000] * len(sizes), rng, loss)
    return float(np.mean([huge.values[huge.strata == category].mean() for category in range(len(sizes))]))


def mme_gated(sizes: Sequence[int], loss: float, runs: int) -> tuple[list[Drop], float]:
    """Drops of such MMEs as the gate sees them, in points, and the true one."""
    rng = np.random.default_rng(6)
    truth = 100 * _mme_truth(sizes, rng, loss)
    return [drop_of(_mme_run(sizes, rng, loss)) for _ in range(runs)], truth


def f1_gated(images: int, questions: int, loss: float, runs: int) -> tuple[list[Drop], float]:
    """Drops of POPE's F1 as the gate sees them, in points, and the true one."""
    rng, found = np.random.default_rng(7), []
    huge = _f1_run(60_000, questions, rng, loss)
    with patch.object(bootstrap, "REPLICATES", 2000):
        for _ in range(runs):
            mean = bounded_sums(_f1_run(images, questions, rng, loss), 3).points()
            found.append(Drop(mean.value, mean.low, mean.high, mean.n, mean.clusters))
    return found, 100 * float(huge.metric(huge.parts.sum(0)))


def _f1_run(images: int, questions: int, rng: Random, loss: float) -> Sums:
    image = np.repeat(np.arange(images), questions)
    truth = rng.random(len(image)) < 0.5
    dense = np.where(rng.random(len(image)) < rng.beta(8, 1.5, images)[image], truth, ~truth)
    pruned = np.where(rng.random(len(image)) < np.minimum(1, rng.beta(1, 4, images) * 5 * loss)[image], ~dense, dense)
    parts = [np.stack([said & truth, said & ~truth, ~said & truth], 1).astype(float) for said in (dense, pruned)]
    return Sums(np.concatenate(parts, 1), image, lambda totals: f1(totals[..., :3]) - f1(totals[..., 3:]))


def f1_drops(images: int, questions: int, loss: float, runs: int) -> tuple[Intervals, float]:
    """Drops of POPE's F1, with the paired bootstrap's intervals."""
    rng = np.random.default_rng(5)
    huge = _f1_run(60_000, questions, rng, loss)
    truth = float(huge.metric(huge.parts.sum(0)))
    made = [_f1_run(images, questions, rng, loss) for _ in range(runs)]
    with patch.object(bootstrap, "REPLICATES", 2000):
        return [bootstrap_interval(run.parts, run.clusters, run.metric) for run in made], truth


def image_draws(
    runs: int, count: int, questions: int, lost: float, gained: float, inside: float = 1.0, seed: int = 0
) -> np.ndarray:
    """(runs, count): mean differences of images; an image loses or gains, each of its questions with chance `inside`."""
    rng = np.random.default_rng(seed)
    kind = rng.choice([0.0, 1.0, -1.0], (runs, count), p=[1 - lost - gained, lost, gained])
    return kind * rng.binomial(questions, inside, (runs, count)) / questions


def refuted(draws: np.ndarray, margin: float, looks: np.ndarray | None = None) -> np.ndarray:
    """(runs,): after how many of the draws (runs, n) a mean of at least `margin` is refuted, looking after each of them or
    after `looks`; inf if never.
    """
    looks = np.arange(1, draws.shape[1] + 1) if looks is None else looks
    with np.errstate(over="ignore"):  # boundless wealth refutes too
        wealth = sum(np.cumprod(1 + c * (margin - draws) / (1 - margin), 1)[:, looks - 1] for c in STAKES) / len(STAKES)
    return np.where((wealth >= DECIDES).any(1), looks[(wealth >= DECIDES).argmax(1)], np.inf)


def decided(draws: np.ndarray, margin: float, looks: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """When each run passes, and when it fails."""
    return refuted(draws, margin, looks), refuted(-draws, -margin, looks)


def ends(images: int, upto: int) -> np.ndarray:
    """After how many of `images` a sequential run looks, one question each."""
    found = np.array(list(itertools.accumulate(len(part) for part in stretches(range(images), 16, 0))))
    return found[found <= upto]
