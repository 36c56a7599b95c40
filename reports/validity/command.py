"""Say how well a results folder foretells the tables that papers have printed."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fitprune.arguments import known_names, names, share, whole
from fitprune.errors import FitPruneError, unknown_name
from fitprune.files import check_target, is_written_through, write_atomically

if TYPE_CHECKING:
    from harness.results.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("results", metavar="DIR", type=Path, help="the folder that pytest suites/ --results wrote, of a model or its seeds")
    add(
        "--reduction",
        metavar="R",
        type=share,
        help="compare rows at this reduction (default: those with each method's own parameters for N tokens, as in print)",
    )
    add("--model", metavar="NAME", default="llava-1.5-7b", help="the model that the tables are of (default: %(default)s)")
    add("--tokens", metavar="N", type=whole(), default=64, help="visual tokens left in print (default: %(default)s)")
    add("--suite", type=names, default=(), metavar="NAMES", help="comma list: on these alone (default: all that were measured)")
    add("--markdown", metavar="FILE", type=Path, help="write it there, and a scatter plot beside it as SVG")


def run(options: argparse.Namespace) -> None:
    """Read the results folder, whose table is compared, or those of one model's seeds, and print or write the page."""
    from harness.published.tables import tables
    from harness.tasks.specs import SUITES
    from reports.charts import charts
    from reports.table.leaderboard import read_leaderboard
    from reports.table.seeds import alike
    from reports.validity.page import measured, to_page, write_picture

    models = sorted({table.model for table in tables().values()})
    if options.model not in models:
        raise unknown_name("model of a printed table", options.model, models)
    suites = known_names("suite", options.suite, SUITES)
    pictured = options.markdown is not None and charts.available() and not is_written_through(options.markdown)
    if options.markdown is not None:
        check_target(options.markdown)
    if pictured:
        check_target(options.markdown.with_suffix(".svg"))
    leaderboard = read_leaderboard(options.results)
    found = [part.table for part in leaderboard.boards]
    if len({alike(table) for table in found}) > 1 or len({table.model for table in found}) < len(found):
        headings = "; ".join(part.heading for part in leaderboard.boards)
        raise FitPruneError(
            f"results folder {options.results} holds {len(found)} tables, of which validity asks one, or one for each seed of "
            f"one model: {headings}"
        )
    if suites:
        found = [_narrowed(table, suites) for table in found]
    asked = options.reduction
    each = [_as_printed(table, options.model, options.tokens) if asked is None else asked for table in found]
    what = (measured(found, each), options.model, options.tokens)
    if options.markdown is None:
        print(to_page(*what), end="")
        return
    picture = options.markdown.with_suffix(".svg")
    text = to_page(*what, picture.name if pictured else "")
    write_atomically(options.markdown, [text])
    if pictured:
        write_picture(picture, *what)
    elif not charts.available():
        print("reports: no chart: it needs the extra charts, python -m pip install '.[charts]'", file=sys.stderr)


def _narrowed(table: "Table", suites: Sequence[str]) -> "Table":
    """The same on some suites alone."""
    missing = [suite for suite in suites if suite not in table.averaged]
    if missing:
        raise FitPruneError(f"{table.model} has no score on {', '.join(missing)} there; it has {', '.join(table.averaged)}")
    return replace(table, suites=list(suites))


def _as_printed(table: "Table", model: str, tokens: int) -> dict[str, float]:
    """The asked reduction of each method's row that prunes as in print; for that the measured model's configuration is read."""
    from fitprune.models.sizes import visual_tokens
    from harness.models.loading import load_outline
    from harness.tasks.typical import typical_tokens
    from reports.validity.as_printed import asked_as_printed

    outline = load_outline(table.rows[0].cell.model)
    here = visual_tokens(outline.config) or typical_tokens(outline, table.data)
    assert here is not None
    return asked_as_printed(table, model, tokens, outline.config, here)
