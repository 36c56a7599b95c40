"""Leaderboards from a results folder: as a page, Markdown, CSV, LaTeX, or against another folder."""

import argparse
import sys
from collections.abc import Mapping
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING

from fitprune.errors import FitPruneError
from fitprune.files import check_target, is_written_through, write_atomically

if TYPE_CHECKING:
    from reports.table.leaderboard import Leaderboard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("results", metavar="DIR", type=Path, help="the folder that pytest suites/ --results wrote")
    add("--markdown", metavar="FILE", type=Path, help="write it as Markdown, and charts beside it as SVG")
    add("--html", metavar="FILE|DIR", type=Path, help="write it as one self-contained page (DIR: DIR/index.html)")
    add("--csv", metavar="FILE", type=Path, help="write every figure as CSV, one line a row and suite")
    add("--latex", metavar="FILE", type=Path, help="write the tables as LaTeX (booktabs)")
    add("--compare", metavar="DIR2", type=Path, help="in Markdown, how DIR differs from DIR2 instead of the leaderboard")
    add(
        "--difficulty",
        action="store_true",
        help="in Markdown, CSV and the page, also what share a downsampled model answers, and the drop on the rest",
    )


def run(options: argparse.Namespace) -> None:
    """Read the results folder and write what is asked for; Markdown goes to the standard output if nothing is."""
    only_latex = options.latex and not (options.markdown or options.csv or options.html)
    if options.difficulty and (options.compare or only_latex):
        what = "--compare" if options.compare else "--latex alone"
        raise FitPruneError(
            f"--difficulty adds to the leaderboard in Markdown, as CSV and on the page: ask for one of these, not {what}"
        )
    targets = _targets(options)
    for name, path in targets.items():
        # Only the folder of a page is made.
        check_target(path, makes_folder=name == "html" and path != options.html)
        if list(targets.values()).count(path) > 1:
            raise FitPruneError(f"{path} is named for two outputs; give each a file of its own")

    from harness.cores import available_cores
    from reports.table.leaderboard import read_leaderboard

    board = read_leaderboard(options.results, options.difficulty, processes=available_cores())
    unread = [note for part in board.boards for note in part.unread]
    for note in [*board.damaged, *unread, *_write(board, targets, options.compare)]:
        print(f"reports: {note}", file=sys.stderr)


def _targets(options: argparse.Namespace) -> dict[str, Path]:
    """The files to write; a page may be given as a folder, that of its index.html."""
    given = {name: getattr(options, name) for name in ("csv", "latex", "html", "markdown")}
    page = given["html"]
    if page is not None and page.suffix.lower() not in (".html", ".htm") and not is_written_through(page):
        if guess_type(page.name)[0] and not page.is_dir():
            raise FitPruneError(f"--html {page} is named like another kind of file; end it in .html, or name a folder")
        given["html"] = page / "index.html"
    return {name: path for name, path in given.items() if path is not None}


def _write(board: "Leaderboard", targets: Mapping[str, Path], compare: Path | None) -> list[str]:
    """Make every text before the first is written, so that an error leaves nothing behind; returns notes for people."""
    from reports.charts import charts
    from reports.page.html import to_html
    from reports.table.leaderboard import read_leaderboard
    from reports.writing.compare import to_comparison
    from reports.writing.markdown import to_markdown
    from reports.writing.tabular import to_csv, to_latex

    writers = {"csv": to_csv, "latex": to_latex, "html": to_html}
    texts = {path: writers[name](board) for name, path in targets.items() if name in writers}
    file, pictures = targets.get("markdown"), []
    if compare is not None:
        markdown = to_comparison(board, read_leaderboard(compare))
    else:
        if file is not None and charts.available():
            pictures = charts.picture_paths(board, file)
        markdown = to_markdown(board, [path.name for path in pictures])
    for picture in pictures:
        check_target(picture)
    if file is not None:
        texts[file] = markdown
    elif not texts or compare is not None:
        print(markdown, end="")
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, [text])
    charts.write_pictures(board, pictures)
    drawn = "html" in targets or (file is not None and compare is None)
    return (
        ["no charts: they need the extra charts, python -m pip install '.[charts]'"] if drawn and not charts.available() else []
    )
