"""The command line of the method: `python -m fitprune fit` makes recipes, `python -m fitprune show` prints and draws them."""

import argparse
import shlex
import sys
from pathlib import Path

from fitprune.arguments import Parser, exit_status, shares, whole
from fitprune.errors import Interrupted


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 0, 2 for input that cannot be used, or 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def run() -> int:
        options = _parser().parse_args(arguments)
        try:
            options.run(options)
        except Interrupted as kept:
            again = shlex.join(["python", "-m", "fitprune", *arguments])
            print(
                f"interrupted: {kept.samples} of {options.samples} samples are kept in {kept.folder}; go on with: {again}",
                file=sys.stderr,
            )
            return 130
        except KeyboardInterrupt:
            print("interrupted; nothing was written", file=sys.stderr)
            return 130
        return 0

    return exit_status(run)


def _fit(options: argparse.Namespace) -> None:
    from fitprune.cli.fit import fit

    fit(options)


def _show(options: argparse.Namespace) -> None:
    from fitprune.cli.show import show

    show(options.recipe, options.output)


def _parser() -> Parser:
    parser = Parser(prog="python -m fitprune", description="Prune a vision-language model's visual tokens.")
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", help="fit recipes for FLOPs budgets on calibration data")
    fit.set_defaults(run=_fit)
    fit.add_argument("--model", required=True, metavar="NAME|DIR", help="registry name, hub id or local folder")
    fit.add_argument(
        "--reduction", type=shares, required=True, metavar="R[,R]", help="shares of visual-token FLOPs to save, 0-1"
    )
    fit.add_argument("-o", "--output", required=True, metavar="FILE|DIR/", help="recipe file; a folder for several budgets")
    fit.add_argument(
        "--data",
        default="mini",
        metavar="mini|DIR",
        help="calibration data: the embedded set, or a folder with calibration.parquet (image, question)",
    )
    fit.add_argument("--samples", type=whole(), default=128, metavar="N", help="calibration samples (default 128)")
    fit.add_argument(
        "--mode",
        default="sequential",
        metavar="sequential|one-pass",
        help="run the pruned model at every step of the search, as published, or the unpruned model once (default sequential)",
    )
    fit.add_argument("--batch-size", type=whole(), default=16, metavar="N", help="samples per forward (default 16)")
    fit.add_argument("--device", metavar="DEVICE", help="cpu, cuda:0 (default: a GPU where there is one)")
    fit.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="folder for the statistics, which then stay (default: one beside the output, until the recipes are there)",
    )
    show = commands.add_parser("show", help="print a recipe, and draw the tokens it leaves in each layer")
    show.set_defaults(run=_show)
    show.add_argument("recipe", metavar="FILE|published:NAME@P", help="a recipe file, or one that the authors published")
    show.add_argument("-o", "--output", type=Path, metavar="FILE", help="picture to draw, .png or .svg")
    return parser


if __name__ == "__main__":
    sys.exit(main())
