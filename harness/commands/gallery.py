"""Show on a few questions which patches each pruner keeps, layer by layer, and what the model then answers."""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from fitprune.errors import FitPruneError, unknown_name

HELP = "pictures of what pruners keep, for the page of python -m reports"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="llava-tiny",
        metavar="NAME",
        help="registry name, family's name, hub id or folder (default llava-tiny)",
    )
    parser.add_argument(
        "--pruner", default="fitprune,fastv,random", metavar="NAMES", help="comma list, or all (default fitprune,fastv,random)"
    )
    parser.add_argument(
        "--reduction", default="0.5", metavar="R,R", help="shares of the visual tokens' FLOPs to save (default 0.5)"
    )
    parser.add_argument("--suite", default="gqa", metavar="NAMES", help="comma list (default gqa)")
    parser.add_argument("--questions", type=int, default=6, metavar="N", help="questions of each suite (default 6)")
    parser.add_argument("--results", default="results", metavar="DIR", help="the pictures go to DIR/gallery (default results)")
    parser.add_argument("--data", default="mini", metavar="mini|hub|DIR", help="as for pytest suites/ (default mini)")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or auto (default: CUDA where there is one)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the pruners that draw (default 0)")


def run(options: argparse.Namespace) -> None:
    """Check the command line, then run every pruner on the questions and write the pictures."""
    from baselines.registry import PRUNERS
    from harness.cells import DENSE
    from harness.models.family_names import announced
    from harness.tasks.specs import SUITES

    suites = _names("suite", options.suite, SUITES)
    pruners = [name for name in _names("pruner", options.pruner, PRUNERS) if name != DENSE]
    reductions = _shares(options.reduction)
    if not pruners:
        raise FitPruneError("--pruner names no method that prunes")
    if options.questions < 1:
        raise FitPruneError(f"--questions must be at least 1, not {options.questions}")
    options.model = announced(options.model).name
    _check(options, suites)
    _draw(options, pruners, reductions, suites)


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


def _draw(options: argparse.Namespace, pruners: Sequence[str], reductions: Sequence[float], suites: Sequence[str]) -> None:
    from harness.bench.bench import Bench
    from harness.gallery.file import FOLDER, write_scene
    from harness.gallery.survivors import gallery_command, gallery_settings, scenes
    from harness.results.once import RunFolder

    settings = gallery_settings(options.data, options.questions, options.seed, reductions)
    count = 0
    with tempfile.TemporaryDirectory(prefix="fitprune-gallery-") as folder:
        bench = Bench(settings, RunFolder(Path(folder)), device=options.device)
        for suite in suites:
            command = gallery_command(_words(options, suite))
            for scene in scenes(bench, options.model, pruners, reductions, suite, command):
                write_scene(options.results, scene)
                count += 1
    print(f"{count} pictures in {Path(options.results) / FOLDER}; python -m reports {options.results} --html FILE shows them")


def _words(options: argparse.Namespace, suite: str) -> list[str]:
    """The options again, for one suite; what is the default is left out where it is not what one would look for."""
    words = ["--model", options.model, "--pruner", options.pruner, "--reduction", options.reduction, "--suite", suite]
    words += ["--questions", str(options.questions)]
    words += ["--data", options.data] if options.data != "mini" else []
    words += ["--device", options.device] if options.device else []
    return words + (["--seed", str(options.seed)] if options.seed else [])


def _names(kind: str, given: str, known: Iterable[str]) -> list[str]:
    names = list(known)
    chosen = [part.strip() for part in given.split(",")]
    if chosen == ["all"]:
        return names
    for name in chosen:
        if name not in names:
            raise unknown_name(kind, name, names)
    return list(dict.fromkeys(chosen))


def _shares(given: str) -> list[float]:
    shares = []
    for part in given.split(","):
        try:
            shares.append(float(part))
        except ValueError:
            shares.append(-1.0)
        if not 0 < shares[-1] < 1:
            raise FitPruneError(f"--reduction {part.strip()} is not between 0 and 1; it is the share of FLOPs to save")
    return list(dict.fromkeys(shares))
