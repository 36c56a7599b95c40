"""The leaderboard as Markdown, for a README or a pull request."""

import re
from collections.abc import Sequence
from urllib.parse import quote

import pandas as pd

from reports.table.difficulty import Difficulty
from reports.table.leaderboard import Board, Leaderboard, Text
from reports.table.published import QUOTED, Quoted
from reports.table.seeds import SeedTable, seed_tables


def to_markdown(board: Leaderboard, charts: Sequence[str] = ()) -> str:
    """One section a table, then means over one model's seeds, then what was published of its methods, then the files that could
    not be read.

    charts: of each table the picture that stands under it, as a link relative to the file; none are shown without.
    """
    links = [*charts, *[""] * (len(board.boards) - len(charts))]
    seeds = [_beside(f"## {escape(table.heading)}", table) for table in seed_tables(board.boards)]
    sections = [*map(_section, board.boards, links), *seeds]
    parts = ["# Accuracy against FLOPs", *sections, _published(board.published)]
    if board.damaged:
        parts.append("\n".join(["Left out:", "", *(f"- {escape(note)}" for note in board.damaged)]))
    return "\n\n".join(parts) + "\n"


def _section(board: Board, chart: str) -> str:
    table = table_of(board.columns, [[_cell(text) for text in line.values()] for line in board.lines])
    table += f"\n\n![{escape(board.heading)}: average score against GFLOPs]({quote(chart)})" if chart else ""
    notes = "\n".join(f"- {escape(note)}" for note in board.notes)
    again = "- Run it again (each result's file holds the command of its own cell):"
    made = f"## {escape(board.heading)}\n\n{table}\n\n{notes}\n{again}\n\n```\n{board.command}\n```"
    if board.difficulty is None:
        return made
    return f"{made}\n\n{_beside('### Drop on the questions that downsampling does not answer', board.difficulty)}"


def _beside(heading: str, of: Difficulty | SeedTable) -> str:
    """A table beside the leaderboard's, as its texts are, with its notes."""
    table = table_of(of.columns, [[escape(text) for text in line] for line in of.lines])
    notes = "\n".join(f"- {escape(note)}" for note in of.notes)
    return f"{heading}\n\n{table}\n\n{notes}"


def table_of(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are escaped already."""
    frame = pd.DataFrame(list(map(list, lines)), columns=[escape(name) for name in columns])
    return frame.to_markdown(index=False, disable_numparse=True)


def _published(table: Quoted) -> str:
    lines = [
        [row.model, row.method, row.setting, *(row.values.get(suite, "–") for suite in table.suites), row.source]
        for row in table.rows
    ]
    columns = ["model", "method", "setting", *table.titles, "source"]
    body = table_of(columns, [[escape(text) for text in line] for line in lines])
    return f"## Published figures of these methods\n\n{escape(QUOTED)}\n\n{body}"


def _cell(text: Text) -> str:
    return f"**{escape(text.text)}**" if text.best else escape(text.text)


def escape(text: str) -> str:
    """A text that Markdown shows as it is, also in a table."""
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", " ".join(text.split()))
