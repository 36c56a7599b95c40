"""What does the one-pass fit cost in accuracy? Recipes of both modes for the same budgets, on the same questions.

    python -m tests.benchmarks.bench_modes [--model llava-tiny] [--reduction 0.3,0.5,0.7,0.9] [--limit 400]

Each mode fits its recipes for `--reduction` of the visual tokens' FLOPs, as `fitprune fit` does, on the calibration
set; both are evaluated on the mini suites. Mean drop over the suites, in points, with its 95 % interval (suites are
independent: half-widths add in squares).
"""

import argparse
import math

from tabulate import tabulate

from fitprune import Calibration, FitPrune, FitPruneError
from fitprune.fitting.calibrate import MODES
from harness.models.loading import load_model
from harness.statistics import paired_drop
from harness.tasks.calibration import calibration_batches
from harness.tasks.specs import SUITES
from tests.support.evaluating import evaluate_cell


def main() -> None:
    """Print the table, with what it was measured on."""
    parser = argparse.ArgumentParser(description="Accuracy of sequential and one-pass recipes at equal FLOPs.")
    parser.add_argument("--model", default="llava-tiny", help="a registry name, hub id or local folder")
    parser.add_argument("--reduction", default="0.3,0.5,0.7,0.9")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--limit", type=int, default=400)
    arguments = parser.parse_args()
    reductions = [float(part) for part in arguments.reduction.split(",")]
    try:
        loaded = load_model(arguments.model)
        batches = calibration_batches(loaded, "mini", arguments.samples)
        recipes = {}
        for mode in MODES:
            calibration = Calibration(loaded.model, batches, mode=mode, progress=False)
            recipes |= {(reduction, mode): calibration.recipe(reduction) for reduction in reductions}
    except FitPruneError as error:
        parser.error(str(error))
    drops: dict[tuple[float, str], list] = {key: [] for key in recipes}
    for suite in SUITES:
        dense = evaluate_cell(loaded, None, suite, limit=arguments.limit)
        for key, recipe in recipes.items():
            pruned = evaluate_cell(loaded, FitPrune(recipe), suite, limit=arguments.limit)
            drops[key].append(paired_drop(dense, pruned))
    rows = []
    for reduction in reductions:
        for mode in MODES:
            recipe, of_suites = recipes[reduction, mode], drops[reduction, mode]
            mean = sum(drop.drop for drop in of_suites) / len(of_suites)
            half = math.hypot(*((drop.high - drop.low) / 2 for drop in of_suites)) / len(of_suites)
            row = [f"{reduction:g}", mode, f"{recipe.provenance['alpha']:.3f}", f"{recipe.reduction:.1%}"]
            rows.append([*row, f"{mean:.1f} ± {half:.1f}", *(f"{drop.drop:.1f}" for drop in of_suites), recipe.drop])
    header = [
        "reduction",
        "mode",
        "alpha",
        "saved",
        "mean drop",
        *(SUITES[suite].title for suite in SUITES),
        "dropped per layer",
    ]
    print(f"{arguments.model}, {arguments.samples} calibration samples, {arguments.limit} questions a suite at most.\n")
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
