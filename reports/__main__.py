"""The command line of the reports. Exit status 2, with one line, for a folder or a file that cannot be used."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fitprune.errors import FitPruneError
from harness.store import write_atomically
from reports.html import to_html
from reports.leaderboard import Leaderboard, read_leaderboard
from reports.markdown import to_markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Read a results folder and write what is asked for; Markdown goes to the standard output if nothing is."""
    parser = argparse.ArgumentParser(prog="python -m reports", description="Leaderboards from a results folder.")
    parser.add_argument("results", metavar="DIR", type=Path, help="the folder that pytest suites/ --results wrote")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the leaderboard as Markdown")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the leaderboard as one self-contained page")
    asked = parser.parse_args(arguments)
    try:
        board = read_leaderboard(asked.results)
        _write(board, asked.markdown, asked.html)
    except (FitPruneError, OSError) as error:
        print(f"reports: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for note in board.damaged:
        print(f"reports: {note}", file=sys.stderr)
    return 0


def _write(board: Leaderboard, markdown: Path | None, html: Path | None) -> None:
    """Make every text before the first is written, so that an error leaves nothing behind."""
    texts = {path: make(board) for path, make in ((markdown, to_markdown), (html, to_html)) if path is not None}
    if not texts:
        print(to_markdown(board), end="")
    for path in texts:
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise FitPruneError(f"cannot write {path}: {'it is a folder' if path.is_dir() else 'its folder does not exist'}")
    for path, text in texts.items():
        write_atomically(path, [text])


if __name__ == "__main__":
    sys.exit(main())
