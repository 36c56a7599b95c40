"""Prints what docs/gate.md says of the gate in simulation, each figure beside what is promised.

    python -m tests.benchmarks.gate_errors [--runs 1] [--results DIR]

The exit status is 1 where a promise is not kept. It takes some minutes; `--runs 4` takes four times as many runs.
"""

import argparse
import sys

from tabulate import tabulate

from harness.results.store import Store
from tests.benchmarks.gate_errors.promises import promises
from tests.benchmarks.gate_errors.sequential import real, sequential


def main() -> int:
    """Print the tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=float, default=1.0, help="how many times the usual number of runs in each world")
    parser.add_argument("--results", help="a results folder with pruned cells that were asked in full")
    parser.add_argument("--images", type=int, default=3000, help="size of the suites drawn from its answers")
    parser.add_argument("--margin", type=float, default=5.0, help="in points, for a drop of 0 among its answers")
    options = parser.parse_args()
    made = list(promises(options.runs))
    lines = [[p.world, p.what, p.measured, p.least, p.most, "" if p.kept else "BROKEN"] for p in made]
    print(tabulate(lines, ["world", "what", "measured", "at least", "at most", ""], tablefmt="github", floatfmt=".3f"))
    heads = ["suite", "images", "margin", "differ", "asked at 0", "asked at twice the margin"]
    print("\n" + tabulate(sequential(round(150 * options.runs)), heads, tablefmt="github", floatfmt=".3g"))
    if options.results:
        heads = ["cell", "images", "drop", "coverage", "passes at it", "fails at it", "asked at 0", "asked at twice the margin"]
        rows = real(Store(options.results), 300, options.images, options.margin / 100)
        print("\n" + tabulate(rows, heads, tablefmt="github", floatfmt=".3g"))
    return 0 if all(promise.kept for promise in made) else 1


if __name__ == "__main__":
    sys.exit(main())
