"""Fit recipes for one or several FLOPs budgets, from a model's name and calibration data."""

import argparse
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fitprune.arguments import one_of, shares, whole
from fitprune.errors import BudgetError, FitPruneError, Interrupted
from fitprune.files import check_target
from fitprune.fitting import MODES

# The entry points under which a source of models and calibration data announces itself. The harness is one; this package
# does not import it.
PROVIDERS = "fitprune.providers"
# Of pictures, and of videos, whose prompts are longer.
SAMPLES, BATCH = (128, 32), (16, 2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="NAME|DIR", help="registry name, hub id or local folder")
    add("--reduction", type=shares, required=True, metavar="R[,R]", help="shares of visual-token FLOPs to save, 0-1")
    add("-o", "--output", required=True, metavar="FILE|DIR/", help="recipe file; a folder for several budgets")
    add(
        "--data",
        default="mini",
        metavar="mini|DIR",
        help="calibration data: the embedded set, or a folder with calibration.parquet (image, question), "
        "of videos calibration_video.parquet (video, question)",
    )
    add("--samples", type=whole(), metavar="N", help="calibration samples (default 128, of videos 32)")
    add(
        "--frames", type=whole(), metavar="N", help="fit on prompts about videos, each shown by N frames (default: on pictures)"
    )
    add(
        "--mode",
        type=one_of(*MODES),
        default=MODES[0],
        metavar="|".join(MODES),
        help="run the pruned model at every step of the search, as published, or the unpruned model once (default sequential)",
    )
    add("--batch-size", type=whole(), metavar="N", help="samples per forward (default 16, of videos 2)")
    add("--device", metavar="DEVICE", help="cpu, cuda:0 (default: a GPU where there is one)")
    add(
        "--keep",
        type=Path,
        metavar="DIR",
        help="folder for the statistics, which then stay (default: one beside the output, until the recipes are there)",
    )


def run(options: argparse.Namespace) -> None:
    """`fit`. After Ctrl-C it says what is kept, and the command that goes on with it."""
    try:
        fit(options)
    except Interrupted as kept:
        raise KeyboardInterrupt(
            f"{kept.samples} of {options.samples} samples are kept in {kept.folder}; go on with: {options.typed}"
        ) from None


def fit(options: argparse.Namespace) -> None:
    """Fit and write the recipes that the command line asks for.

    The statistics lie in `--keep`, by default in a hidden folder beside the output: after an interruption the same command
    goes on from there. The default folder is deleted once the recipes are written, one that `--keep` names stays.
    """
    reductions, frames = options.reduction, options.frames or 0
    options.samples = options.samples or SAMPLES[frames > 0]
    targets = _targets(options.output, reductions)
    keep = options.keep or _kept_beside(Path(options.output), targets)
    if keep.exists() and not keep.is_dir():
        raise FitPruneError(f"cannot keep statistics in {keep}: it is a file.")
    provider = _provider()
    provider.check(options.model, options.data, options.device, frames)

    import transformers

    from fitprune.fitting.calibrate import Calibration

    if not sys.stderr.isatty():
        transformers.logging.disable_progress_bar()
    loaded = provider.load(options.model, options.device)
    batches = provider.calibration(loaded, options.data, options.samples, options.batch_size or BATCH[frames > 0], frames)
    _make_folder(targets[0].parent)
    try:
        calibration = Calibration(
            loaded.model,
            batches,
            mode=options.mode,
            progress=sys.stderr.isatty(),
            origin=provider.origin(loaded, options.data, frames),
            keep=keep,
        )
        for reduction, target in zip(reductions, targets, strict=True):
            recipe = calibration.recipe(reduction)
            recipe.save(target)
            print(f"{target}: saves {recipe.reduction:.1%} of the FLOPs of {recipe.visual_tokens} visual tokens")
    except BudgetError as error:
        raise BudgetError(
            f"{error} The statistics are kept in {keep}: the same command with another budget uses them."
        ) from None
    if not options.keep:
        shutil.rmtree(keep, ignore_errors=True)


def _targets(output: str, reductions: Sequence[float]) -> list[Path]:
    """Where each recipe goes: the file itself for one budget, a folder for several or where the name says so."""
    path = Path(output)
    if len(reductions) > 1 or path.is_dir() or output.endswith(("/", os.sep)):
        if path.exists() and not path.is_dir():
            raise FitPruneError(f"{path} is a file; several recipes need a folder.")
        return [path / f"recipe-{reduction:g}.json" for reduction in reductions]
    check_target(path)
    return [path]


def _kept_beside(output: Path, targets: list[Path]) -> Path:
    """The default of `--keep`: in a folder of recipes the same for any budgets, so that more of them can be asked for."""
    if targets == [output]:
        return output.with_name(f".{output.name}.fitprune-statistics")
    return output / ".fitprune-statistics"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FitPruneError(f"cannot create the folder {folder}: {error.strerror}.") from None


def _provider() -> Any:
    found = list(importlib.metadata.entry_points(group=PROVIDERS))
    if not found:
        raise FitPruneError("no source of models and data is installed; install this package: python -m pip install .[bench]")
    try:
        return found[0].load()
    except ImportError as error:
        raise FitPruneError(f"{error}; install what the harness needs: python -m pip install .[bench]") from None
