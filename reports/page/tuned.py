"""Searches for the page: what `fitprune tune` left in a results folder."""

from pathlib import Path
from typing import Any

from harness.tuning.file import FOLDER, check_tuned
from reports.page.left import left_in


def read_tuned(results: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The searches of a results folder, and one line for each that is damaged."""
    found, notes = left_in(results, FOLDER, check_tuned)
    return [record for record, _ in found], notes
