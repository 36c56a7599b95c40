"""The leaderboard as one HTML page that needs no network. Everything that comes from a result is escaped."""

from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from fitprune.errors import FitPruneError
from harness.store import Result, Store
from reports.leaderboard import Leaderboard

LOST_SHOWN = 5  # questions shown of those that a pruner lost


@dataclass(frozen=True)
class Lost:
    """A cell's questions that the dense model answered better: how many, and the first of them."""

    title: str
    count: int
    answers: list[dict[str, Any]]


def to_html(board: Leaderboard) -> str:
    """The page: the tables, how they were measured, and questions that pruning lost."""
    environment = Environment(
        loader=PackageLoader("reports"), autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True
    )
    lost = [[_lost(board.store, result) for result in part.table.results if not result.cell.is_dense] for part in board.boards]
    return environment.get_template("leaderboard.html").render(board=board, lost=lost)


def _lost(store: Store, result: Result) -> Lost:
    try:
        answers = store.read_answers(result)
    except FitPruneError:
        answers = []
    worse = [answer for answer in answers if (answer.get("dense_score") or 0) > (answer.get("score") or 0)]
    return Lost(f"{result.cell.label()} on {result.suite}", len(worse), worse[:LOST_SHOWN])
