"""The command line of the method: `python -m fitprune fit --model NAME --reduction 0.6 -o recipe.json`."""

import argparse
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError
from fitprune.flops import check_reduction

# Models and calibration data come from the harness, which this package does not import: it announces itself here.
PROVIDERS = "fitprune.providers"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 2 for input that cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        _fit(options)
    except FitPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; no recipe was written", file=sys.stderr)
        return 130
    return 0


def _fit(options: argparse.Namespace) -> None:
    reductions = _reductions(options.reduction)
    for reduction in reductions:
        check_reduction(reduction)
    targets = _targets(Path(options.output), reductions)
    for name in ("samples", "batch_size"):
        if getattr(options, name) < 1:
            raise FitPruneError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}.")
    provider = _provider()
    provider.check(options.model, options.data)

    from fitprune.calibrate import Calibration

    loaded = provider.load(options.model, options.device)
    batches = provider.calibration(loaded, options.data, options.samples, options.batch_size)
    calibration = Calibration(loaded.model, batches, progress=sys.stderr.isatty())
    recipes = [calibration.recipe(reduction) for reduction in reductions]
    for target, recipe in zip(targets, recipes, strict=True):
        recipe.save(target)
        print(
            f"{target}: saves {recipe.reduction:.1%} of the FLOPs of {recipe.visual_tokens} visual tokens; drop {recipe.drop}"
        )


def _reductions(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise FitPruneError(f"--reduction takes a number between 0 and 1, or several with commas, not '{text}'.") from None


def _targets(output: Path, reductions: list[float]) -> list[Path]:
    """Where each recipe goes: the file itself for one budget, a folder for several. Checked before any work."""
    several = len(reductions) > 1 or output.is_dir()
    folder = output if several else output.parent
    if several and not output.exists():
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise FitPruneError(f"cannot create the folder {folder}: {error.strerror}.") from None
    if not folder.is_dir():
        raise FitPruneError(f"there is no folder {folder} to write a recipe to.")
    return [folder / f"recipe-{reduction:g}.json" for reduction in reductions] if several else [output]


def _provider() -> Any:
    found = list(importlib.metadata.entry_points(group=PROVIDERS))
    if not found:
        raise FitPruneError("no source of models and data is installed; install this package: python -m pip install .[bench]")
    try:
        return found[0].load()
    except ImportError as error:
        raise FitPruneError(f"{error}; install what the harness needs: python -m pip install .[bench]") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fitprune", description="Prune a vision-language model's visual tokens.")
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", help="fit a recipe for a FLOPs budget on a calibration batch")
    fit.add_argument("--model", required=True, metavar="NAME", help="registry name, hub id or local folder")
    fit.add_argument("--reduction", required=True, metavar="R[,R]", help="share of visual-token FLOPs to save, 0-1")
    fit.add_argument("-o", "--output", required=True, metavar="FILE", help="recipe file; a folder for several budgets")
    fit.add_argument(
        "--data",
        default="mini",
        metavar="mini|DIR",
        help="calibration data: the embedded set, or a folder with calibration.parquet (image, question)",
    )
    fit.add_argument("--samples", type=int, default=128, metavar="N", help="calibration samples (default 128)")
    fit.add_argument("--batch-size", type=int, default=16, metavar="N", help="samples per forward (default 16)")
    fit.add_argument("--device", metavar="DEVICE", help="cpu, cuda:0 (default: a GPU where there is one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
