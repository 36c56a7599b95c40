"""The command line that writes the mini suites and the calibration set."""

from __future__ import annotations

import argparse
from pathlib import Path

from fitprune.arguments import Parser, exit_status
from harness.scenes.draw import Canvas
from harness.scenes.mini.benchmarks import MAKERS
from harness.scenes.mini.table import fine_print, write


def _canvas(text: str) -> Canvas:
    tall, _, wide = text.partition("x")
    if not (tall.isdigit() and wide.isdigit() and 1 <= int(tall) <= 8 and 1 <= int(wide) <= 8):
        raise argparse.ArgumentTypeError(f"{text!r} is not two whole numbers from 1 to 8, such as 1x3")
    return int(tall), int(wide)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(prog="python -m harness.scenes.mini", description="Write the mini suites and the calibration set.")
    parser.add_argument("--out", type=Path, default=Path("suites/data"), help="folder to write to (default: %(default)s)")
    parser.add_argument(
        "--canvas",
        type=_canvas,
        default=(1, 1),
        metavar="HxW",
        help="how many times 96 pixels the pictures are tall and wide; larger ones are fine print (default: 1x1)",
    )

    def run() -> None:
        options = parser.parse_args(arguments)
        for maker in MAKERS.values():
            for table in maker():
                path = write(table if options.canvas == (1, 1) else fine_print(table, options.canvas), options.out)
                print(f"{path}: {len(table.rows)} rows, {path.stat().st_size / 1e3:.0f} kB")

    return exit_status(run, "cannot write the mini suites")
