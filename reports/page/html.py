"""The leaderboard as one HTML page that needs no network. Everything that comes from a result reaches it as data: its script
writes texts as texts, never as markup.
"""

from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from reports.charts import charts
from reports.page.gallery import read_gallery
from reports.page.page import page_data, to_script
from reports.table.leaderboard import Leaderboard


def to_html(board: Leaderboard) -> str:
    """The page: leaderboard, charts, methods, gallery, how it was measured."""
    gallery, notes = read_gallery(board.store.folder)
    return rendered(
        "page.html",
        script=_template("page.js"),
        vega=Markup(charts.runtime() if charts.available() else ""),
        data=Markup(to_script(page_data(board, gallery, notes))),
        headings=[part.heading for part in board.boards],
    )


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
