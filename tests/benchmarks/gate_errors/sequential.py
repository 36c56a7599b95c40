"""How many questions a sequential run takes, and how often it errs: in simulation, and on a results folder's own answers.

A folder's answers are drawn again, image by image, into suites of any size, so that their true drop is known: what the
sample shows. For a drop of 0, which model was the dense one is drawn too.
"""

import math

import numpy as np

from harness.answering.evaluate import Answer, Answers
from harness.results.store import Store
from harness.statistics import image_drops
from harness.statistics.drops import bounded_mean
from harness.statistics.metrics import Units
from tests.benchmarks.gate_errors.worlds import decided, ends

# Images of the public edition, margin, share of the images that differ.
SUITES = [("vqav2", 40_504, 0.01, 0.08), ("vqav2", 40_504, 0.01, 0.02), ("textvqa", 3_166, 0.02, 0.02)]


def sequential(runs: int) -> list[list[object]]:
    """Per suite: median share of the images asked at a drop of 0 and of twice the margin."""
    lines: list[list[object]] = []
    for suite, images, margin, differing in SUITES:
        rng, upto = np.random.default_rng(0), images // 2
        lost = max(2 * margin, differing / 2 + margin)
        shares = []
        for loss, gain in ((differing / 2, differing / 2), (lost, lost - 2 * margin)):
            draws = rng.choice([0.0, 1.0, -1.0], (runs, upto), p=[1 - loss - gain, loss, gain])
            shares.append(np.median(np.minimum(*decided(draws, margin, ends(images, upto)))) / images)
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
    mean = bounded_mean(Units(drops, np.arange(len(drops)), np.zeros(len(drops), dtype=int), len(drops)), -1.0)
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
        passed, failed = decided(draws, truth, np.arange(1, images + 1))
        even = np.minimum(*decided(draws * rng.choice([-1, 1], draws.shape), margin, looks))
        twice = np.minimum(*decided(draws, truth / 2, looks)) if truth >= 2 * margin else np.array([np.nan])
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
