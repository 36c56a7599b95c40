"""`Record`: the figures so far, one line of JSON each, appended as soon as it is measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.results.journal import Journal
from harness.results.strict_json import strict
from tests.benchmarks.gpu.section import Row, Section
from tests.benchmarks.gpu.sizes import FULL, TOY, Sizes

FILE = "gpu.jsonl"


class Record:
    """The figures in a folder.

    An entry has a setting, the names of its section and row, and of "measured", "cannot" and "failed" one: the figures, or why
    there are none. What failed is no figure: it is measured again when the command is.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder / FILE)

    def add(self, setting: Mapping[str, Any], section: str, row: str, **entry: Any) -> None:
        """Once this has returned, the figure is kept."""
        self._journal.append(known := strict({"setting": setting, "section": section, "row": row, **entry}))
        self._journal.entries.append(known)

    def latest(self) -> dict[str, Any]:
        """The entry that was added last."""
        return self._journal.entries[-1]

    def of(self, setting: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
        """The latest entry of each row, by section and row."""
        return {(entry["section"], entry["row"]): entry for entry in self._journal.entries if entry["setting"] == setting}

    def settings(self) -> list[dict[str, Any]]:
        """Those that there are figures of; of one card, precision, attention and size the latest alone."""
        latest = {}
        for entry in self._journal.entries:
            found = entry["setting"]
            latest[tuple(found[part] for part in ("card", "dtype", "attention", "toy"))] = found
        return list(latest.values())

    def left(self, section: Section, setting: Mapping[str, Any]) -> list[Row]:
        """The rows without a figure, those last that failed before."""
        known = self.of(setting)
        rows = [
            row for row in section.rows(sizes_of(setting)) if "failed" in known.get((section.name, row.name), {"failed": ""})
        ]
        return sorted(rows, key=lambda row: (section.name, row.name) in known)

    def pace(self, section: Section, setting: Mapping[str, Any]) -> float:
        """How many times as long as estimated the section's rows took at most; 1 at least."""
        known = self.of(setting)
        taken = [
            known[section.name, row.name].get("seconds", 0) / row.seconds
            for row in section.rows(sizes_of(setting))
            if (section.name, row.name) in known
        ]
        return max([1.0, *taken])


def sizes_of(setting: Mapping[str, Any]) -> Sizes:
    """The sizes of a setting."""
    return TOY if setting["toy"] else FULL
