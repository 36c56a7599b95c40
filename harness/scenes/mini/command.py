"""Write the mini suites and the calibration sets; on larger canvases as fine print, the pictures alone."""

import argparse
from pathlib import Path

from fitprune.files import check_folder
from harness.models.videos.reading import require_reader
from harness.scenes.draw import Canvas
from harness.scenes.mini.benchmarks import MAKERS
from harness.scenes.mini.table import fine_print, write
from harness.scenes.mini.videos import VIDEO_MAKERS, write_clip


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
    if options.canvas == (1, 1):
        require_reader()
    for maker in MAKERS.values():
        for table in maker():
            path = write(table if options.canvas == (1, 1) else fine_print(table, options.canvas), options.out)
            print(f"{path}: {len(table.rows)} rows, {path.stat().st_size / 1e3:.0f} kB")
    if options.canvas != (1, 1):  # videos have no characters
        return
    for clips in (maker() for maker in VIDEO_MAKERS.values()):
        sizes = [write_clip(options.out / name, pictures).stat().st_size for name, pictures in clips.videos.items()]
        for table in clips.tables:
            print(f"{write(table, options.out)}: {len(table.rows)} rows")
        print(f"{options.out}: {len(sizes)} videos, {sum(sizes) / 1e3:.0f} kB")
