"""The leaderboard as Markdown, for a README or a pull request."""

import re

import pandas as pd

from reports.leaderboard import Board, Leaderboard, Text


def to_markdown(board: Leaderboard) -> str:
    """One section a table, then the files that could not be read."""
    parts = ["# Accuracy against FLOPs", *(_section(part) for part in board.boards)]
    if board.damaged:
        parts.append("\n".join(["Left out:", "", *(f"- {escape(note)}" for note in board.damaged)]))
    return "\n\n".join(parts) + "\n"


def _section(board: Board) -> str:
    frame = pd.DataFrame(
        [[_cell(text) for text in line] for line in board.lines], columns=[escape(name) for name in board.columns]
    )
    table = frame.to_markdown(index=False, disable_numparse=True)
    notes = "\n".join(f"- {escape(note)}" for note in board.notes)
    again = "- Run it again (each result's file holds the command of its own cell):"
    return f"## {escape(board.heading)}\n\n{table}\n\n{notes}\n{again}\n\n```\n{board.command}\n```"


def _cell(text: Text) -> str:
    return f"**{escape(text.text)}**" if text.best else escape(text.text)


def escape(text: str) -> str:
    """A text that Markdown shows as it is, also in a table."""
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", " ".join(text.split()))
