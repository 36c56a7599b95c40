"""The command line of the reports. Exit status 2, with one line, for a folder or a file that cannot be used."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fitprune.arguments import Parser, exit_status
from fitprune.errors import FitPruneError
from fitprune.files import check_target
from harness.results.atomic import write_atomically
from reports.charts import charts
from reports.charts.pictures import picture_paths, write_pictures
from reports.page.html import to_html
from reports.table.leaderboard import Leaderboard, read_leaderboard
from reports.validity.command import validity
from reports.writing.compare import to_comparison
from reports.writing.markdown import to_markdown
from reports.writing.tabular import to_csv, to_latex

_WRITERS: Mapping[str, Callable[[Leaderboard], str]] = {"csv": to_csv, "latex": to_latex, "html": to_html}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read a results folder and write what is asked for; Markdown goes to the standard output if nothing is."""

    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["validity"]:
        return exit_status(lambda: validity(given[1:]), "reports")

    def run() -> None:
        asked = _parser().parse_args(arguments)
        if asked.difficulty and (asked.compare or ((asked.html or asked.latex) and not (asked.markdown or asked.csv))):
            raise FitPruneError(
                "--difficulty adds to the leaderboard in Markdown and as CSV: ask for one of them, not for --compare"
            )
        board = read_leaderboard(asked.results, asked.difficulty)
        for note in board.damaged + _write(board, asked):
            print(f"reports: {note}", file=sys.stderr)

    return exit_status(run, "reports")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports",
        description="Leaderboards from a results folder; `validity DIR` says how well one foretells what papers printed.",
    )
    parser.add_argument("results", metavar="DIR", type=Path, help="the folder that pytest suites/ --results wrote")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write it as Markdown, and charts beside it as SVG")
    parser.add_argument(
        "--html", metavar="FILE|DIR", type=Path, help="write it as one self-contained page (DIR: DIR/index.html)"
    )
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write every figure as CSV, one line a row and suite")
    parser.add_argument("--latex", metavar="FILE", type=Path, help="write the tables as LaTeX (booktabs)")
    parser.add_argument(
        "--compare", metavar="DIR2", type=Path, help="in Markdown, how DIR differs from DIR2 instead of the leaderboard"
    )
    parser.add_argument(
        "--difficulty",
        action="store_true",
        help="in Markdown and CSV, also the share of questions that a downsampled model answers, and the drop on the rest",
    )
    return parser


def _write(board: Leaderboard, asked: argparse.Namespace) -> list[str]:
    """Make every text before the first is written, so that an error leaves nothing behind; returns notes for people."""
    pages = {path: name for name in _WRITERS if (path := _target(name, asked)) is not None}
    files = [*pages, *([asked.markdown] if asked.markdown else [])]
    for path in files:
        # Only the folder of a page is made.
        check_target(path, makes_folder=asked.html is not None and path == asked.html / "index.html")
    texts = {path: _WRITERS[name](board) for path, name in pages.items()}
    if asked.compare is not None:
        markdown, pictures = to_comparison(board, read_leaderboard(asked.compare)), []
    else:
        pictures = picture_paths(board, asked.markdown) if asked.markdown and charts.available() else []
        markdown = to_markdown(board, [path.name for path in pictures])
    if asked.markdown:
        texts[asked.markdown] = markdown
    elif not texts or asked.compare is not None:
        print(markdown, end="")
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, [text])
    write_pictures(board, pictures)
    drawn = asked.html or (asked.markdown and asked.compare is None)
    return (
        ["no charts: they need the extra charts, python -m pip install '.[charts]'"] if drawn and not charts.available() else []
    )


def _target(name: str, asked: argparse.Namespace) -> Path | None:
    """The file to write; a page may be given as a folder, that of its index.html."""
    path: Path | None = getattr(asked, name)
    if name == "html" and path is not None and path.suffix.lower() not in (".html", ".htm"):
        return path / "index.html"
    return path


if __name__ == "__main__":
    sys.exit(main())
