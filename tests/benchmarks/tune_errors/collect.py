"""Answers of an embedded model to large drawn suites, dense and pruned, so that true drops are known.

    python -m tests.benchmarks.tune_errors.collect DIR --suite gqa,vqav2 --reduction 0.5,0.7 --pruner fitprune --questions 10000

A folder holds one `.npz` for each cell; cells that are there are not asked again.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fitprune import BudgetError
from fitprune.arguments import names, shares, whole
from harness.bench.bench import Bench
from harness.cells import DENSE, Cell, CellSettings
from harness.results.once import RunFolder
from harness.scenes.mini.benchmarks import gqa, textvqa, vqav2
from harness.scenes.mini.table import write
from harness.tasks.parquet import data_folder
from harness.tuning.asking import features_of

MAKERS = {"gqa": lambda n: gqa(-(-n // 5)), "vqav2": lambda n: vqav2(-(-n // 5)), "textvqa": textvqa}


@dataclass(frozen=True)
class Cells:
    """One suite's cells: dense scores and features, and by method and budget the scores and the CPU seconds of a question."""

    dense: np.ndarray
    features: np.ndarray
    dense_seconds: float
    pruned: dict[tuple[str, float], np.ndarray]
    seconds: dict[tuple[str, float], float]


def read(folder: Path, suite: str) -> Cells:
    """What a folder has of a suite."""
    before = np.load(folder / f"{suite}-{DENSE}.npz")
    pruned, seconds = {}, {}
    for path in sorted(folder.glob(f"{suite}-*@*.npz")):
        pruner, _, reduction = path.stem.removeprefix(f"{suite}-").partition("@")
        after = np.load(path)
        pruned[pruner, float(reduction)] = after["score"]
        seconds[pruner, float(reduction)] = float(after["seconds"]) / len(after["score"])
    return Cells(before["score"], before["features"], float(before["seconds"]) / len(before["score"]), pruned, seconds)


def cells_of(suites: tuple[str, ...], pruners: tuple[str, ...], reductions: tuple[float, ...]) -> Iterator[tuple[str, Cell]]:
    """File names and cells."""
    for suite in suites:
        yield f"{suite}-{DENSE}", Cell("llava-tiny", DENSE, None, suite)
        for pruner in pruners:
            for reduction in reductions:
                yield f"{suite}-{pruner}@{reduction:g}", Cell("llava-tiny", pruner, reduction, suite)


def main() -> int:
    """Make the data where they are not there, and ask; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--suite", type=names, default=("gqa", "vqav2"))
    parser.add_argument("--pruner", type=names, default=("fitprune",))
    parser.add_argument("--reduction", type=shares, default=(0.5, 0.7))
    parser.add_argument("--questions", type=whole(), default=10_000)
    options = parser.parse_args()
    data = options.folder / f"data-{options.questions}"
    for suite in options.suite:
        for table in MAKERS[suite](options.questions):
            if not (data / table.path).exists():
                write(table, data)
    shutil.copy(data_folder("mini") / "calibration.parquet", data)
    settings = CellSettings(data=str(data), batch_size=32, reductions=options.reduction)
    bench = Bench(settings, RunFolder(options.folder / "shared"))
    for name, cell in cells_of(options.suite, options.pruner, options.reduction):
        path = options.folder / f"{name}.npz"
        if path.exists():
            continue
        try:
            resolved = bench.resolver.resolve(cell)
        except BudgetError as error:
            print(f"{name}: {error}", flush=True)
            continue
        began = time.process_time()
        answers = bench.evaluation.evaluate(resolved).answers
        seconds = time.process_time() - began
        scores = [answer.score for answer in answers.answers]
        np.savez(path, score=scores, features=features_of(answers.answers), seconds=seconds)
        print(f"{name}: {len(scores)} questions, {answers.score:.2f} points, {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
