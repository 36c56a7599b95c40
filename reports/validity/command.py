"""`python -m reports validity results/`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from fitprune.arguments import Parser, number, whole
from fitprune.errors import FitPruneError, unknown_name
from fitprune.files import check_target
from harness.published.tables import tables
from harness.results.atomic import write_atomically
from reports.charts import charts
from reports.table.leaderboard import read_leaderboard
from reports.validity.page import to_page, write_picture


def validity(arguments: Sequence[str]) -> None:
    """Read a results folder and say how well its first table foretells printed ones. Raises FitPruneError."""
    parser = Parser(prog="python -m reports validity", description="How well a results folder foretells printed tables.")
    parser.add_argument("results", metavar="DIR", type=Path, help="the folder that pytest suites/ --results wrote")
    parser.add_argument(
        "--reduction", metavar="R", type=number, default=0.89, help="the rows to compare (default: %(default)s)"
    )
    parser.add_argument(
        "--model", metavar="NAME", default="llava-1.5-7b", help="the model that the tables are of (default: %(default)s)"
    )
    parser.add_argument(
        "--tokens", metavar="N", type=whole(), default=64, help="visual tokens left in print (default: %(default)s)"
    )
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write it there, and a scatter plot beside it as SVG")
    asked = parser.parse_args(arguments)
    models = sorted({table.model for table in tables().values()})
    if asked.model not in models:
        raise unknown_name("model of a printed table", asked.model, models)
    board = read_leaderboard(asked.results)
    if len(board.boards) > 1:
        headings = "; ".join(part.heading for part in board.boards)
        raise FitPruneError(
            f"results folder {asked.results} holds {len(board.boards)} tables, of which validity asks one: {headings}"
        )
    table, what = board.boards[0].table, (asked.reduction, asked.model, asked.tokens)
    if asked.markdown is None:
        print(to_page(table, *what), end="")
        return
    check_target(asked.markdown)
    picture = asked.markdown.with_suffix(".svg")
    text = to_page(table, *what, picture.name if charts.available() else "")
    write_atomically(asked.markdown, [text])
    if charts.available():
        write_picture(picture, table, *what)
    else:
        print("reports: no chart: it needs the extra charts, python -m pip install '.[charts]'", file=sys.stderr)
