"""Write the mini suites and the calibration set; on larger canvases as fine print."""

import argparse
from pathlib import Path

from fitprune.files import check_folder
from harness.scenes.draw import Canvas
from harness.scenes.mini.benchmarks import MAKERS
from harness.scenes.mini.table import fine_print, write


def _canvas(text: str) -> Canvas:
    tall, _, wide = text.partition("x")
    if not (tall.isdigit() and wide.isdigit() and 1 <= int(tall) <= 8 and 1 <= int(wide) <= 8):
        raise argparse.ArgumentTypeError(f"{text!r} is not two whole numbers from 1 to 8, such as 1x3")
    return int(tall), int(wide)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("suites/data"), metavar="DIR", help="folder to write to (default: %(default)s)"
    )
    parser.add_argument(
        "--canvas",
        type=_canvas,
        default=(1, 1),
        metavar="HxW",
        help="how many times 96 pixels the pictures are tall and wide; larger ones are fine print (default: 1x1)",
    )


def run(options: argparse.Namespace) -> None:
    """Write the files, and print a line for each."""
    check_folder(options.out, "the mini suites")
    for maker in MAKERS.values():
        for table in maker():
            path = write(table if options.canvas == (1, 1) else fine_print(table, options.canvas), options.out)
            print(f"{path}: {len(table.rows)} rows, {path.stat().st_size / 1e3:.0f} kB")
