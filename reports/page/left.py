"""What commands left in a results folder for the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fitprune.errors import one_line
from harness.results.strict_json import loads

Record = dict[str, Any]


def left_in(results: Path, folder: str, check: Callable[[Any], Record]) -> tuple[list[tuple[Record, int]], list[str]]:
    """The records in a folder of the results, by the names of their files and with their sizes in characters, and one line for
    each that is damaged.
    """
    found, notes = [], []
    for path in sorted((results / folder).glob("*.json")):
        try:
            text = path.read_text(encoding="utf-8")
            found.append((check(loads(text)), len(text)))
        except (OSError, ValueError) as error:
            notes.append(f"{folder}/{path.name} is damaged and left out: {one_line(error)}")
    return found, notes
