"""The most pruning whose drop is certified on every suite, by few questions: a recipe, or a method and its budget."""

import argparse
import sys
from pathlib import Path

from fitprune.arguments import names, one_of, shares, whole
from fitprune.errors import FitPruneError
from fitprune.files import check_target
from harness.gate.thresholds import Thresholds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="a registry name, a family's, a hub id or a local folder")
    add("--suite", type=names, required=True, metavar="NAME[,NAME]", help="suites on which the drop must be certified")
    add("--max-drop", type=Thresholds.parse, required=True, metavar="POINTS", help="points it may lose: 1, or gqa:1,pope:0.5")
    add("--pruner", type=names, default=("fitprune",), metavar="NAME[,NAME]", help="methods, A+B among them (default fitprune)")
    add("--reduction", type=shares, default=None, metavar="R[,R]", help="budgets (default 0.1 to 0.9)")
    add("--for", dest="goal", type=one_of("flops", "latency"), default="flops", metavar="flops|latency", help="what to save")
    add("--confirm", action="store_true", help="keep an image in five from the search, and ask the best candidate about it")
    add("--data", metavar="mini|hub|DIR", help="as for pytest suites/ (default: mini for embedded models, else hub)")
    add("--limit", type=whole(), metavar="N", help="questions per suite (default: all)")
    add(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where answers are kept, and found (default results)",
    )
    add("--batch-size", type=whole(), default=16, metavar="N", help="questions per batch (default 16)")
    add("--seed", type=whole(0), default=0, metavar="N", help="of the draws (default 0)")
    add("--device", metavar="NAME", help="cpu or cuda:N (default: the first GPU, or the CPU where there is none)")
    add("--plan", action="store_true", help="print what would be asked; ask nothing")
    add(
        "-o",
        "--output",
        type=Path,
        default=Path("recipe.json"),
        metavar="FILE.json",
        help="the certified recipe, or method and budget; beside it FILE.tuned.json and FILE.tuned.md, the report "
        "(default recipe.json)",
    )


def run(options: argparse.Namespace) -> int:
    """Search, and write what was found; the status is 0 where a candidate is certified and `--confirm` does not refute it."""
    if options.output.suffix != ".json":
        raise FitPruneError(f"cannot write {options.output}: a recipe's name ends in .json")
    check_target(options.output)
    from harness.tuning.asked import Asked

    asked = Asked.checked(options, options.typed)
    from harness.tuning.run import plan_lines, tune

    if options.plan:
        print("\n".join(plan_lines(asked)))
        return 0
    try:
        tuned = tune(asked)
    except KeyboardInterrupt:
        print(f"interrupted; what was answered is in {options.results}; go on with: {options.typed}", file=sys.stderr)
        return 130
    tuned.write(options.output, options.results)
    print(tuned.markdown())
    return 0 if tuned.holds else 1
