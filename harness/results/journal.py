"""A cell's journal: one line per finished batch, so that a killed run goes on where it stopped.

A line is a JSON object. The log is only ever appended to, a whole line at a time; what a kill tore off, or a damaged
disk left behind the last readable line, is cut off when the journal is opened again, and those questions are asked anew.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any

from harness.storage.files import Files, Folder


class Journal:
    """The finished batches of one cell. At most one process may have it open: the cell's lock sees to that.

    Attributes:
        entries: what earlier runs appended. What this one does is not kept in memory: there may be very many.
    """

    def __init__(self, name: str | Path, files: Files | None = None) -> None:
        """The log of a name among `files`; by itself, the file at a path."""
        self.files = files or Folder(Path(name).parent)
        self._name = PurePosixPath(name if files else Path(name).name)
        self.entries: list[dict[str, Any]] = []
        good, log = 0, self.files.read_log(str(self._name))
        for line in log.splitlines(keepends=True):
            entry = _entry(line)
            if entry is None:
                break
            self.entries.append(entry)
            good += len(line)
        if len(log) > good:
            self.files.cut(str(self._name), good)

    def append(self, entry: dict[str, Any]) -> None:
        """Add a finished batch. Once this has returned, the death of the process does not lose it."""
        self.files.append(str(self._name), json.dumps(entry, allow_nan=False).encode() + b"\n")

    def part(self, number: int) -> "Journal":
        """The journal of a part of the cell, which asks its questions in several goes."""
        return Journal(str(self._name.with_stem(f"{self._name.stem}-{number}")), self.files)

    def remove(self) -> None:
        """Forget everything, parts too: the cell is complete, or is to start from the beginning."""
        self.entries.clear()
        for name in self.files.names(str(self._name.parent)):
            own, other = self._name, self._name.with_name(name)
            if other == own or (name.startswith(f"{own.stem}-") and other.suffix == own.suffix):
                self.files.remove(str(other))


def _entry(line: bytes) -> dict[str, Any] | None:
    """The object in a whole line; None for anything else."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
