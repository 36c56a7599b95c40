"""A cell's journal: one line per finished batch, so that a killed run goes on where it stopped.

A line is a JSON object. The file is only ever appended to, a whole line at a time; what a kill tore off, or a damaged
disk left behind the last readable line, is cut off when the journal is opened again, and those questions are asked anew.
"""

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """The finished batches of one cell. At most one process may have it open: the cell's lock sees to that.

    Attributes:
        entries: what was appended so far, in earlier runs too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        good = 0
        for line in self._lines():
            entry = _entry(line)
            if entry is None:
                break
            self.entries.append(entry)
            good += len(line)
        if path.exists() and path.stat().st_size > good:
            os.truncate(path, good)

    def _lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []

    def append(self, entry: dict[str, Any]) -> None:
        """Add a finished batch. Once this has returned, the death of the process does not lose it."""
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:  # one write, straight to the operating system
            file.write(line)
        self.entries.append(entry)

    def part(self, number: int) -> "Journal":
        """The journal of a part of the cell, which asks its questions in several goes."""
        return Journal(self.path.with_name(f"{self.path.stem}-{number}{self.path.suffix}"))

    def remove(self) -> None:
        """Forget everything, parts too: the cell is complete, or is to start from the beginning."""
        self.entries.clear()
        self.path.unlink(missing_ok=True)
        for part in self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"):
            part.unlink(missing_ok=True)


def _entry(line: bytes) -> dict[str, Any] | None:
    """The object in a whole line; None for anything else."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
