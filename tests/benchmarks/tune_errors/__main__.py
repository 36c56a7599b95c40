"""Prints what docs/tune.md says of the search: how often it errs, how many questions it asks, how long it takes.

    python -m tests.benchmarks.tune_errors [--runs 2000]                                  errors, in simulation
    python -m tests.benchmarks.tune_errors --questions DIR --suite vqav2 --runs 11        questions, beside the sequential gate
    python -m tests.benchmarks.tune_errors --search DIR --suite gqa,vqav2,textvqa --runs 100     a whole search, beside the grid

Folders are those of `tests.benchmarks.tune_errors.collect`. The exit status is 1 where an error is above what is promised.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from tabulate import tabulate

from fitprune.arguments import names, whole
from tests.benchmarks.tune_errors.questions import searched, taken
from tests.benchmarks.tune_errors.worlds import PREDICTORS, WORLDS, Case, errs, family

LEVEL = 0.05


def errors(runs: int) -> int:
    """Each world at the margin, alone and in a whole search; returns how many promises are broken."""
    most, broken, rows = LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / runs), 0, []
    for world in WORLDS:
        for predictor in PREDICTORS:
            passed, failed = np.mean([errs(Case(world, predictor, 200, 0.06, 0.04), run, LEVEL) for run in range(runs)], 0)
            made = [family(Case(world, predictor, 150, 0.08, 0.02), run) for run in range(runs)]
            wrong, certified = np.mean(made, 0)
            broken += sum(share > most for share in (passed, failed, wrong))
            rows.append([world, predictor, *(f"{share:.2%}" for share in (passed, failed, wrong)), f"{certified:.2f}"])
            print(*rows[-1], sep=", ", file=sys.stderr, flush=True)
    heads = ["world", "predictor", "passes at the margin", "fails at it", "a search certifies wrongly", "certified in a search"]
    print(tabulate(rows, heads, tablefmt="github", disable_numparse=True))
    print(f"\npromised: at most 5 %; with the simulation's error {most:.2%}")
    return broken


def main() -> int:
    """Print the tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=whole(), default=2000)
    parser.add_argument("--questions", type=Path, metavar="DIR")
    parser.add_argument("--search", type=Path, metavar="DIR")
    parser.add_argument("--suite", type=names, default=("vqav2",))
    parser.add_argument("--max-drop", type=float, default=2.0)
    parser.add_argument("--drawn", type=whole(), default=10_000, help="questions of each suite of a search")
    options = parser.parse_args()
    if options.questions:
        heads = ["cell", "size", "margin", "drop", "differ", "sequential gate", "drawn", "of it", "fewest possible"]
        rows = []
        for one in taken(options.questions, options.suite, options.runs):
            shares = [f"{one.margin:.0%}", f"{one.drop:.0%}", f"{one.differ:.1%}"]
            asked = [f"{one.present:.0f}", f"{one.drawn:.0f}", f"{one.drawn / one.present:.0%}", f"{one.fewest:.0f}"]
            rows.append([one.cell, one.shape, *shares, *asked])
            print(*rows[-1], sep=", ", file=sys.stderr, flush=True)
        print(tabulate(rows, heads, tablefmt="github", disable_numparse=True))
        return 0
    if options.search:
        found = searched(options.search, options.suite, options.max_drop / 100, options.drawn, options.runs)
        print(found)
        return 0
    return 1 if errors(options.runs) else 0


if __name__ == "__main__":
    sys.exit(main())
