"""The results folder: one JSON file per cell, beside it the cell's answers, each written whole or not at all.

    llava-tiny-fitprune-0.5-gqa-1f0c9b2a77de0412.json            the result
    llava-tiny-fitprune-0.5-gqa-1f0c9b2a77de0412.answers.jsonl   one question per line
    shared/                                                      what several cells need: dense answers, fitted recipes
    journals/                                                    cells that have begun and not ended
    locks/                                                       which process is at which cell; empty files
    cannot/                                                      cells that could not run, and why
    gallery/                                                     pictures of what pruners keep

The name ends in a digest of everything that decides the result, so two runs can share a folder: they meet in one
file only where they would write the same. JSON is strict: a number that does not exist is `null`, never `NaN`. Each file
holds a digest of its content, so that a truncated or edited one is noticed.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fitprune.errors import FitPruneError
from harness.cells import Cell
from harness.results.atomic import write_atomically
from harness.results.journal import Journal
from harness.results.key import digest_of
from harness.results.locks import alone
from harness.results.once import RunFolder
from harness.results.result import Result, result_name
from harness.results.strict_json import dumps, loads, loads_lines

if TYPE_CHECKING:
    from harness.answers import Answers

ANSWERS_SUFFIX = ".answers.jsonl"


class StoredResults(NamedTuple):
    """The readable results of a folder, oldest first, and one line for each file that could not be read."""

    results: list[Result]
    notes: list[str]


class Store:
    """A results folder. Making the object touches nothing; the folder appears with the first result."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        # The folder's names by either part of them, as they were when it was last seen to change.
        self._listed: tuple[int, Mapping[str, list[str]]] = (-1, {})

    def check_writable(self) -> None:
        """Raise FitPruneError, in one line, if results could not be written here. Leaves nothing behind."""
        existing = next(path for path in (self.folder.absolute(), *self.folder.absolute().parents) if os.path.lexists(path))
        if not existing.is_dir():
            raise FitPruneError(f"results folder {self.folder}: {existing} is not a folder; give another with --results")
        try:
            with tempfile.TemporaryDirectory(prefix=".write-test-", dir=existing):
                pass
        except OSError as error:
            raise FitPruneError(
                f"results folder {self.folder} cannot be written ({error.strerror}); give another with --results"
            ) from None

    @property
    def shared(self) -> RunFolder:
        """What several cells need, of this run and later ones."""
        return RunFolder(self.folder / "shared")

    def lock(self, key: str, what: str) -> contextlib.AbstractContextManager[None]:
        """Inside, no other process is at the cell with this key; `what` names it for those who wait."""
        return alone(self.folder / "locks" / f"{key}.lock", what)

    def journal(self, key: str) -> Journal:
        """The journal of the cell with this key, with what an earlier run left in it."""
        return Journal(self.folder / "journals" / f"{key}.jsonl")

    def write(self, result: Result, answers: "Answers", dense: "Answers | None" = None) -> Path:
        """Write the answers, then the result that makes them count; each by a rename, so that a reader or a crash
        never sees half of one.

        With `dense`, each line also holds what the dense model answered to the question. Returns the path of the result.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._listed = (-1, {})  # a file system's clock may tell two changes from one another only after some milliseconds
        lines = [dumps(record) + "\n" for record in answers.to_records(dense)]
        write_atomically(self.folder / f"{result.name}{ANSWERS_SUFFIX}", lines)
        record = dataclasses.replace(result, answers_digest=_digest("".join(lines))).to_json()
        path = self.folder / f"{result.name}.json"
        sealed = record | {"digest": digest_of(record)}
        write_atomically(path, [json.dumps(sealed, indent=1, ensure_ascii=False, allow_nan=False), "\n"])
        return path

    def names(self, key: str) -> list[str]:
        """The names of the results with a key: none, one, or several that were asked for in different words."""
        return self._with(key)

    def names_of(self, cell: Cell) -> list[str]:
        """The names of a cell's results, whatever their keys."""
        return self._with(result_name(cell, "").removesuffix("-"))

    def _with(self, part: str) -> list[str]:
        """The names of results that end in a key, or begin with all that stands before it."""
        try:
            changed = self.folder.stat().st_mtime_ns
        except OSError:
            return []
        if changed != self._listed[0]:
            by_part: dict[str, list[str]] = defaultdict(list)
            for path in sorted(self.folder.glob("*.json")):
                for own in path.stem.rpartition("-")[::2]:
                    by_part[own].append(path.stem)
            self._listed = changed, by_part
        return list(self._listed[1].get(part, ()))

    def find(self, name: str) -> Result:
        """The result of that name. Raises FitPruneError, in one line, if its file is gone, damaged or edited."""
        return read_result(self.folder / f"{name}.json")

    def set_aside(self, name: str) -> None:
        """Rename the damaged files of a result, so that nobody reads them and nobody loses them."""
        for path in (self.folder / f"{name}.json", self.folder / f"{name}{ANSWERS_SUFFIX}"):
            if path.exists():
                path.replace(path.with_name(f"{path.name}.damaged"))

    def remove(self, result: Result) -> None:
        """Take a result and its answers out of the folder."""
        for path in (self.folder / f"{result.name}.json", self.folder / f"{result.name}{ANSWERS_SUFFIX}"):
            path.unlink(missing_ok=True)

    def read_all(self) -> StoredResults:
        """Every result of the folder; a damaged file is named in the notes and the rest stays usable."""
        results, notes = [], []
        for path in sorted(self.folder.glob("*.json")):
            try:
                results.append(read_result(path))
            except FitPruneError as error:
                notes.append(str(error))
        results.sort(key=lambda result: result.date)
        return StoredResults(results, notes)

    def read_answers(self, result: Result) -> list[dict[str, Any]]:
        """The per-question records of a result. Raises FitPruneError, in one line, if they are gone, damaged or edited."""
        path = self.folder / f"{result.name}{ANSWERS_SUFFIX}"
        try:
            text = path.read_text(encoding="utf-8")
            if result.answers_digest and _digest(text) != result.answers_digest:
                raise ValueError("they are not those that were written with the result")
            return loads_lines(text)
        except (OSError, ValueError) as error:
            raise FitPruneError(f"cannot read the answers in {path}: {_one_line(error)}") from None


def read_result(path: Path) -> Result:
    """The result in one file. Raises FitPruneError that names the file and what is wrong with it, in one line."""
    try:
        record = loads(path.read_text(encoding="utf-8"))
        sealed = record.pop("digest", None) if isinstance(record, dict) else None
        result = Result.from_json(record)
        if not result.key:  # of a version that left it to the file's name
            result.key = path.stem.rpartition("-")[2]
        if sealed != digest_of(record):
            raise ValueError("its content is not what was written")
        return result
    except (OSError, ValueError) as error:
        raise FitPruneError(f"{path.name} is damaged and left out: {_one_line(error)}") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
