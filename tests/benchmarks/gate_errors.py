"""How often the gate errs, and how many questions a sequential run takes: in simulation, and on a results folder's own answers.

    python -m tests.benchmarks.gate_errors [--runs 4000] [--results DIR]

A folder's answers are drawn again, image by image, into suites of any size, so that their true drop is known: what the
sample shows. For a drop of 0, which model was the dense one is drawn too.
"""

import argparse
import math

import numpy as np
from tabulate import tabulate

from harness.answering.evaluate import Answer, Answers
from harness.bench.stretches import image_drops, stretches
from harness.results.store import Store
from harness.statistics import Drop, Units, Verdict, certified, significant
from harness.statistics.betting import DECIDES, STAKES
from harness.statistics.drops import _bounded_mean

# Images, shares of them that lose and that gain, chance of each of their 1-6 questions to differ then.
WORLDS = [
    (40, 0.02, 0.0, 1.0),
    (40, 0.25, 0.1, 0.8),
    (130, 0.02, 0.01, 0.5),
    (130, 0.2, 0.1, 0.6),
    (400, 0.01, 0.0, 1.0),
    (400, 0.15, 0.1, 0.5),
]
# Images of the public edition, margin, share of the images that differ.
SUITES = [("vqav2", 40_504, 0.01, 0.08), ("vqav2", 40_504, 0.01, 0.02), ("textvqa", 3_166, 0.02, 0.02)]


def draw(rng: np.random.Generator, images: int, lost: float, gained: float, inside: float) -> Drop:
    """A run's drop in such a world."""
    kind = rng.choice([0.0, 1.0, -1.0], images, p=[1 - lost - gained, lost, gained])
    image = np.repeat(np.arange(images), rng.integers(1, 7, images))
    values = kind[image] * (rng.random(len(image)) < inside)
    mean = _bounded_mean(Units(values, image, np.zeros(len(values), dtype=int), len(values)), -1.0).points()
    return Drop(mean.value, mean.low, mean.high, mean.n, mean.clusters, mean.standard_error)


def fixed(runs: int) -> list[list[object]]:
    """Per world: coverage; how often a drop that is the margin fails, and how often it is certified."""
    lines: list[list[object]] = []
    for world in WORLDS:
        rng, truth = np.random.default_rng(0), 100 * (world[1] - world[2]) * world[3]
        found = [draw(rng, *world) for _ in range(runs)]
        lines.append(
            [
                *world,
                np.mean([drop.low <= truth <= drop.high for drop in found]),
                np.mean([significant(drop, truth) == Verdict.FAIL for drop in found]),
                np.mean([certified(drop, truth) == Verdict.PASS for drop in found]),
            ]
        )
    return lines


def refuted(draws: np.ndarray, margin: float, looks: np.ndarray) -> np.ndarray:
    """(runs,): after how many of the draws (runs, n) a mean of at least `margin` is refuted; inf if never."""
    with np.errstate(over="ignore"):  # boundless wealth refutes too
        wealth = sum(np.cumprod(1 + c * (margin - draws) / (1 - margin), 1)[:, looks - 1] for c in STAKES) / len(STAKES)
    return np.where((wealth >= DECIDES).any(1), looks[(wealth >= DECIDES).argmax(1)], np.inf)


def watched(draws: np.ndarray, margin: float, looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When each run passes, and when it fails."""
    return refuted(draws, margin, looks), refuted(-draws, -margin, looks)


def ends(images: int, upto: int) -> np.ndarray:
    """After how many of `images` a run looks, one question each."""
    found = np.cumsum([len(part) for part in stretches(range(images), 16, 0)])
    return found[found <= upto]


def sequential(runs: int) -> list[list[object]]:
    """Per suite: median share of the images asked at a drop of 0 and of twice the margin."""
    lines: list[list[object]] = []
    for suite, images, margin, differing in SUITES:
        rng, upto = np.random.default_rng(0), images // 2
        lost = max(2 * margin, differing / 2 + margin)
        shares = []
        for loss, gain in ((differing / 2, differing / 2), (lost, lost - 2 * margin)):
            draws = rng.choice([0.0, 1.0, -1.0], (runs, upto), p=[1 - loss - gain, loss, gain])
            shares.append(np.median(np.minimum(*watched(draws, margin, ends(images, upto)))) / images)
        lines.append([suite, images, 100 * margin, differing, *shares])
    return lines


def pairs_of(store: Store) -> list[tuple[str, np.ndarray]]:
    """Each pruned cell of a folder with its per-image drops."""
    found = []
    for result in store.read_all().results:
        if result.cell.is_dense or result.suite == "mme" or result.sequential:
            continue
        before, after = ([] for _ in range(2))
        for record in store.read_answers(result):
            kept = {name: value for name, value in record.items() if not name.startswith("dense_")}
            after.append(Answer(**kept))
            before.append(Answer(**(kept | {"answer": record["dense_answer"], "score": record["dense_score"]})))
        sides = [Answers(result.suite, result.metric, math.nan, made, len(made), 0.0, "") for made in (before, after)]
        found.append((f"{result.cell.label()} on {result.suite}", image_drops(sides[0], sides[1])))
    return found


def _covers(drops: np.ndarray, truth: float) -> bool:
    mean = _bounded_mean(Units(drops, np.arange(len(drops)), np.zeros(len(drops), dtype=int), len(drops)), -1.0)
    return mean.low <= truth <= mean.high


def real(store: Store, runs: int, images: int, margin: float) -> list[list[object]]:
    """Per cell, in suites of `images` drawn from its own: coverage at the cell's own size; how often a run errs whose margin
    is its true drop, looking after each image; median share asked at a drop of 0 with this margin, and, where its drop is
    at least twice that, with half the drop for a margin.
    """
    lines: list[list[object]] = []
    for name, drops in pairs_of(store):
        rng, truth = np.random.default_rng(0), float(drops.mean())
        looks = ends(images, images)
        draws = rng.choice(drops, (runs, images))
        passed, failed = watched(draws, truth, np.arange(1, images + 1))
        even = np.minimum(*watched(draws * rng.choice([-1, 1], draws.shape), margin, looks))
        twice = np.minimum(*watched(draws, truth / 2, looks)) if truth >= 2 * margin else np.array([np.nan])
        covered = [_covers(row, truth) for row in draws[:, : len(drops)]]
        lines.append(
            [
                name,
                len(drops),
                100 * truth,
                np.mean(covered),
                np.isfinite(passed).mean(),
                np.isfinite(failed).mean(),
                np.median(even) / images,
                np.median(twice) / images,
            ]
        )
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--results", help="a results folder with pruned cells that were asked in full")
    parser.add_argument("--images", type=int, default=3000, help="size of the suites drawn from its answers")
    parser.add_argument("--margin", type=float, default=5.0, help="in points, for a drop of 0 among its answers")
    options = parser.parse_args()
    heads = ["images", "lose", "gain", "inside", "coverage", "fails at the margin", "is certified at the margin"]
    print(tabulate(fixed(options.runs), heads, tablefmt="github", floatfmt=".3f"))
    heads = ["suite", "images", "margin", "differ", "asked at 0", "asked at twice the margin"]
    print("\n" + tabulate(sequential(min(options.runs, 150)), heads, tablefmt="github", floatfmt=".3g"))
    if options.results:
        heads = ["cell", "images", "drop", "coverage", "passes at it", "fails at it", "asked at 0", "asked at twice the margin"]
        print(
            "\n"
            + tabulate(
                real(Store(options.results), 300, options.images, options.margin / 100),
                heads,
                tablefmt="github",
                floatfmt=".3g",
            )
        )


if __name__ == "__main__":
    main()
