"""Charts as SVG files beside the Markdown that shows them."""

from collections.abc import Sequence
from pathlib import Path

from fitprune.files import is_written_through
from reports.charts.charts import write_svg
from reports.table.headline import named
from reports.table.leaderboard import Leaderboard
from reports.table.points import FLOPS, places_of, points_of


def picture_paths(board: Leaderboard, markdown: Path) -> list[Path]:
    """`leaderboard.svg` beside `leaderboard.md`; `leaderboard-1.svg` and so on where there are several tables;
    none beside a pipe.
    """
    if is_written_through(markdown):
        return []
    if len(board.boards) == 1:
        return [markdown.with_suffix(".svg")]
    return [markdown.with_name(f"{markdown.stem}-{number}.svg") for number, _ in enumerate(board.boards, 1)]


def write_pictures(board: Leaderboard, paths: Sequence[Path]) -> None:
    """Score against FLOPs of each table: averaged, or of its one suite."""
    for path, part in zip(paths, board.boards, strict=False):
        methods = list(dict.fromkeys(row.cell.pruner for row in part.table.rows))
        place = places_of(part.table)[0]
        write_svg(path, FLOPS, methods, points_of(part.table, place, FLOPS, named(part.table)), f"{part.heading}, {place}")
