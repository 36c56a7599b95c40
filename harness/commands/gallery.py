"""Show on a few questions which patches each pruner keeps, layer by layer, and what the model then answers."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fitprune.arguments import known_names, names, shares, whole
from fitprune.errors import FitPruneError
from harness.cells import DENSE, CellSettings
from harness.commands.again import command_again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        default="llava-tiny",
        metavar="NAME",
        help="registry name, family's name, hub id or folder (default llava-tiny)",
    )
    add(
        "--pruner",
        type=names,
        default=("fitprune", "fastv", "random"),
        metavar="NAMES",
        help="comma list, or all (default fitprune,fastv,random)",
    )
    add(
        "--reduction",
        type=shares,
        default=(0.5,),
        metavar="R,R",
        help="shares of the visual tokens' FLOPs to save (default 0.5)",
    )
    add("--suite", type=names, default=("gqa",), metavar="NAMES", help="comma list (default gqa)")
    add("--questions", type=whole(), default=6, metavar="N", help="questions of each suite (default 6)")
    add("--results", type=Path, default="results", metavar="DIR", help="the pictures go to DIR/gallery (default results)")
    add("--data", default="mini", metavar="mini|hub|DIR", help="as for pytest suites/ (default mini)")
    add("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or auto (default: CUDA where there is one)")
    add("--seed", type=whole(0), default=0, metavar="N", help="of the pruners that draw (default 0)")


def run(options: argparse.Namespace) -> None:
    """Check the command line, then run every pruner on the questions and write the pictures."""
    from baselines.registry import PRUNERS
    from harness.models.family_names import announced
    from harness.tasks.specs import SUITES

    suites = known_names("suite", options.suite, SUITES)
    if films := [name for name in suites if SUITES[name].video]:
        raise FitPruneError(f"--suite {films[0]} shows videos; the gallery draws what methods keep of pictures")
    pruners = [name for name in known_names("pruner", options.pruner, PRUNERS) if name != DENSE]
    if not pruners:
        raise FitPruneError("--pruner names no method that prunes")
    options.model = announced(options.model).name
    _check(options, suites)
    _draw(options, pruners, suites)


def _check(options: argparse.Namespace, suites: Sequence[str]) -> None:
    """What needs no model in memory."""
    from harness.models.devices import check_device
    from harness.models.loading import require_model
    from harness.results.store import Store
    from harness.tasks.preflight import check_data

    check_device(options.device)
    require_model(options.model)
    for suite in suites:
        check_data(suite, options.data)
    Store(options.results).check_writable()


def _draw(options: argparse.Namespace, pruners: Sequence[str], suites: Sequence[str]) -> None:
    from harness.bench.bench import Bench
    from harness.gallery.file import FOLDER, write_scene
    from harness.gallery.survivors import scenes
    from harness.results.once import RunFolder

    settings = CellSettings(
        data=options.data, limit=options.questions, batch_size=1, seed=options.seed, reductions=options.reduction
    )
    count = 0
    with tempfile.TemporaryDirectory(prefix="fitprune-gallery-") as folder:
        bench = Bench(settings, RunFolder(Path(folder)), device=options.device)
        for suite in suites:
            for scene in scenes(bench, options.model, pruners, options.reduction, suite, _command(options, suite)):
                write_scene(options.results, scene)
                count += 1
    print(f"{count} pictures in {Path(options.results) / FOLDER}; fitprune report {options.results} --html FILE shows them")


def _command(options: argparse.Namespace, suite: str) -> str:
    """The command that draws one suite's pictures again."""
    asked = argparse.Namespace(**vars(options) | {"suite": suite})
    always = ("model", "pruner", "reduction", "suite", "questions")
    return command_again("gallery", add_arguments, asked, "results", always)
