"""How many questions are asked until a drop is decided, beside the bound of `--gate sequential`; and what a whole search takes.

Both on answers that `collect` has: suites of public size are drawn from them, question by question, so that the truth is known.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.bench.stretches import stretches
from harness.tuning.run import label
from harness.tuning.search import Candidate, Search, Suite
from tests.benchmarks.gate_errors.worlds import decided
from tests.benchmarks.tune_errors.collect import Cells, read
from tests.benchmarks.tune_errors.worlds import followed

SHAPES = {"GQA": (12_578, 31.6), "VQAv2": (214_354, 5.3)}  # questions, and questions an image, of the public editions
MARGINS = (0.01, 0.02)
LEVEL = 0.025  # on either side, as the present gate has it


@dataclass(frozen=True)
class Taken:
    """The median numbers of questions that a decision took, of so many; and the fewest that any test could ask."""

    cell: str
    shape: str
    margin: float
    drop: float
    differ: float
    present: float
    drawn: float
    fewest: float
    questions: int


def population(
    cells: Cells, key: tuple[str, float], drop: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Dense scores and drops whose mean is `drop`: for 0 the two models change places on every other question, in the order of
    how much they differ; else questions that differ are made equal until the mean is right. None where the cell loses less.
    """
    dense, pruned = cells.dense.copy(), cells.pruned[key]
    drops = dense - pruned
    if drop == 0:
        turned = np.zeros(len(dense), dtype=bool)
        turned[np.argsort(-np.abs(drops), kind="stable")[::2]] = True
        turned ^= drops < 0
        return np.where(turned, pruned, dense), np.where(turned, -drops, drops)
    if drops.mean() < drop:
        return None
    order = rng.permutation(len(dense))
    enough = int((np.cumsum(drops[order]) >= drop * len(dense)).argmax())
    drops[order[enough + 1 :]] = 0
    return dense, drops


def taken(folder: Path, suites: tuple[str, ...], runs: int) -> Iterator[Taken]:
    """For each cell that a folder has, each shape, margin, and a drop of nothing and of twice the margin."""
    for suite in suites:
        cells = read(folder, suite)
        for key, (shape, (count, an_image)), margin, times in itertools.product(cells.pruned, SHAPES.items(), MARGINS, (0, 2)):
            rng = np.random.default_rng(0)
            made = population(cells, key, times * margin, rng)
            if made is None:
                continue
            present, drawn = [], []
            for run in range(runs):
                rows = rng.integers(len(made[0]), size=count)
                dense, drops = made[0][rows], made[1][rows]
                present.append(_present(drops, an_image, margin))
                enough = math.log(1 / LEVEL)
                for bound in followed(dense, drops, cells.features[rows], margin, np.random.default_rng([run, 3]), 64):
                    if bound.evidence_below(margin) >= enough or bound.evidence_above(margin) >= enough:
                        drawn.append(bound.asked)
                        break
            fewest = math.log(1 / LEVEL) / -math.log1p(-margin) * float((made[0] > 0).mean())
            name = f"{suite}, {label(*key)}"
            differ = float((made[1] != 0).mean())
            medians = float(np.median(present)), float(np.median(drawn))
            yield Taken(name, shape, margin, times * margin, differ, *medians, fewest, count)


def _present(drops: np.ndarray, an_image: float, margin: float) -> float:
    """Questions that the sequential gate asks, image by image in stretches."""
    images = round(len(drops) / an_image)
    of_image = np.array([part.mean() for part in np.array_split(drops, images)])
    looks = np.array(
        list(itertools.accumulate(len(part) for part in stretches(range(images), max(1, round(16 / an_image)), 0)))
    )
    when = float(np.min(decided(of_image[None], margin, looks)))
    return min(when, images) * an_image


@dataclass(frozen=True)
class Searched:
    """Runs of a whole search on drawn suites: how often it ended at the full grid's answer, one step milder, milder yet, or
    harsher; and its share of the grid's time.
    """

    same: int
    milder: int
    other: int
    harsher: int
    time: float


def searched(folder: Path, suites: tuple[str, ...], margin: float, questions: int, runs: int) -> Searched:
    """The search over all that a folder has, beside the grid's answer: the most saving whose drop is at most the margin on
    every suite. Steps are budgets of any method.
    """
    known = {suite: read(folder, suite) for suite in suites}
    keys = [key for key in next(iter(known.values())).pruned if all(key in cells.pruned for cells in known.values())]
    candidates = [Candidate(label(*key), key[0], key[1]) for key in keys]
    budgets = [0.0, *sorted({candidate.saved for candidate in candidates})]
    steps: list[int] = []
    times: list[float] = []
    for run in range(runs):
        rng = np.random.default_rng([run, 4])
        rows = {suite: rng.integers(len(cells.dense), size=questions) for suite, cells in known.items()}
        drawn = [Suite(suite, cells.dense[rows[suite]], cells.features[rows[suite]], margin) for suite, cells in known.items()]

        def ask(candidate: Candidate, suite: str, places: np.ndarray, rows: dict[str, np.ndarray] = rows) -> np.ndarray:
            return known[suite].pruned[candidate.chain, candidate.saved][rows[suite][places]]

        search = Search(drawn, candidates, ask, seed=run)
        best = search.run()
        allowed = [
            candidate.saved
            for candidate, key in zip(candidates, keys, strict=True)
            if all((cells.dense - cells.pruned[key])[rows[suite]].mean() <= margin for suite, cells in known.items())
        ]
        steps.append(budgets.index(max(allowed, default=0.0)) - budgets.index(best.saved if best else 0.0))
        dense = sum(cells.dense_seconds for cells in known.values()) * questions
        full = sum(known[suite].seconds[key] for suite in suites for key in keys) * questions
        asked = sum(
            known[shown.suite].seconds[tried.candidate.chain, tried.candidate.saved] * shown.asked
            for tried in search.tried
            for shown in tried.shown
        )
        times.append((dense + asked) / (dense + full))
    counts = [sum(map(test, steps)) for test in (lambda s: s == 0, lambda s: s == 1, lambda s: s > 1, lambda s: s < 0)]
    return Searched(*counts, float(np.median(times)))
