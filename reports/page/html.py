"""The leaderboard as one HTML page that needs no network. Everything that comes from a result reaches it as data: its script
writes texts as texts, never as markup.
"""

from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from reports.charts import charts
from reports.page.left import read_gallery, read_tuned
from reports.page.page import page_data, to_script
from reports.table.leaderboard import Leaderboard
from reports.table.texts import each, questions


def to_html(board: Leaderboard) -> str:
    """The page: leaderboard, charts, methods, searches, gallery, how it was measured."""
    gallery, notes = read_gallery(board.store.folder)
    tuned, more = read_tuned(board.store.folder)
    return rendered(
        "page.html",
        script=_template("page.js"),
        vega=Markup(charts.runtime() if charts.available() else ""),
        data=Markup(to_script(page_data(board, gallery, tuned, [*notes, *more]))),
        title=_title(board),
        about=_about(board),
    )


def _title(board: Leaderboard) -> str:
    models = each(part.table.model for part in board.boards)
    more = f" and {len(models) - 3} more" if len(models) > 3 else ""
    return f"Pruned visual tokens of {', '.join(models[:3])}{more}: accuracy against FLOPs"


def _about(board: Leaderboard) -> list[str]:
    """Of what the page is, in short: data, questions, when it was measured."""
    results = [result for part in board.boards for result in part.table.results]
    data = f"{', '.join(each(part.table.data for part in board.boards))} data"
    return [data, questions(results), max(result.date for result in results)[:10]]


def rendered(template: str, **values: Any) -> str:
    """A template of ours in the page's style; values are escaped unless they are `Markup`."""
    environment = Environment(
        loader=PackageLoader("reports.page"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(style=_template("page.css"), **values)


def _template(name: str) -> Markup:
    """A file of ours, which goes into the page as it is."""
    return Markup(resources.files("reports.page").joinpath("templates", name).read_text(encoding="utf-8"))
