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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fitprune.errors import FitPruneError
from harness.answers import Answers
from harness.cells import Cell
from harness.results.journal import Journal
from harness.results.key import digest_of
from harness.results.once import RunFolder
from harness.results.result import Result, result_name
from harness.results.strict_json import dumps, loads, loads_lines
from harness.storage.files import Folder
from harness.storage.places import Place, files_at

if TYPE_CHECKING:
    from fitprune import Recipe

Read = TypeVar("Read")
ANSWERS_SUFFIX = ".answers.jsonl"


class StoredResults(NamedTuple):
    """The readable results of a folder, oldest first, and one line for each file that could not be read."""

    results: list[Result]
    notes: list[str]


class Store:
    """A results folder, wherever its files lie."""

    def __init__(self, folder: Place) -> None:
        self.files = files_at(folder)

    @property
    def folder(self) -> Path:
        """The folder on disk, for what else lies there. Raises FitPruneError where the files lie elsewhere."""
        if isinstance(self.files, Folder):
            return self.files.path
        raise FitPruneError(f"{self.files.place} is no folder of this machine")

    def check_writable(self) -> None:
        """Raise FitPruneError, in one line, if results could not be written here. Leaves nothing behind."""
        self.files.check_writable()

    @property
    def shared(self) -> RunFolder:
        """What several cells need, of this run and later ones."""
        return RunFolder(self.files.below("shared"))

    def lock(self, key: str, what: str) -> contextlib.AbstractContextManager[None]:
        """Inside, no other process is at the cell with this key; `what` names it for those who wait."""
        return self.files.lock(f"locks/{key}.lock", what)

    def journal(self, key: str) -> Journal:
        """The journal of the cell with this key, with what an earlier run left in it."""
        return Journal(f"journals/{key}.jsonl", self.files)

    def begun(self) -> set[str]:
        """The keys of the cells to which a run that was killed, or runs, has answers."""
        return {name.partition(".")[0].partition("-")[0] for name in self.files.names("journals")}

    def write_recipe(self, name: str, recipe: "Recipe") -> None:
        """Keep a fitted recipe as a file for people."""
        self.files.write(f"recipes/{name}.json", [recipe.to_text()])

    def write(self, result: Result, answers: Answers, dense: Answers | None = None) -> str:
        """Write the answers, then the result that makes them count; each whole or not at all, so that a reader or a crash
        never sees half of one.

        With `dense`, each line also holds what the dense model answered to the question. Returns the name of the result's file.
        """
        total = hashlib.sha256()

        def lines() -> Iterator[str]:
            for record in answers.to_records(dense):
                line = dumps(record) + "\n"
                total.update(line.encode())
                yield line

        self.files.write(f"{result.name}{ANSWERS_SUFFIX}", lines())
        record = dataclasses.replace(result, answers_digest=total.hexdigest()[:16]).to_json()
        sealed = record | {"digest": digest_of(record)}
        name = f"{result.name}.json"
        self.files.write(name, [json.dumps(sealed, indent=1, ensure_ascii=False, allow_nan=False), "\n"])
        return name

    def names(self, key: str) -> list[str]:
        """The names of the results with a key: none, one, or several that were asked for in different words."""
        return self.files.stems(key)

    def names_of(self, cell: Cell) -> list[str]:
        """The names of a cell's results, whatever their keys."""
        return self.files.stems(result_name(cell, "").removesuffix("-"))

    def find(self, name: str) -> Result:
        """The result of that name. Raises FitPruneError, in one line, if its file is gone, damaged or edited."""
        try:
            record = loads(self.files.read(f"{name}.json"))
            sealed = record.pop("digest", None) if isinstance(record, dict) else None
            result = Result.from_json(record)
            if not result.key:  # of a version that left it to the file's name
                result.key = name.rpartition("-")[2]
            if sealed != digest_of(record):
                raise ValueError("its content is not what was written")
            return result
        except (OSError, ValueError) as error:
            raise FitPruneError(f"{name}.json is damaged and left out: {_one_line(error)}") from None

    def set_aside(self, name: str) -> None:
        """Rename the damaged files of a result, so that nobody reads them and nobody loses them."""
        for file in (f"{name}.json", f"{name}{ANSWERS_SUFFIX}"):
            self.files.move(file, f"{file}.damaged")

    def remove(self, result: Result) -> None:
        """Take a result and its answers out of the folder."""
        for file in (f"{result.name}.json", f"{result.name}{ANSWERS_SUFFIX}"):
            self.files.remove(file)

    def read_all(self) -> StoredResults:
        """Every result of the folder; a damaged file is named in the notes and the rest stays usable."""
        results, notes = [], []
        for file in self.files.names():
            if file.endswith(".json"):
                try:
                    results.append(self.find(file.removesuffix(".json")))
                except FitPruneError as error:
                    notes.append(str(error))
        results.sort(key=lambda result: result.date)
        return StoredResults(results, notes)

    def read_answers(self, result: Result) -> list[dict[str, Any]]:
        """The per-question records of a result. Raises FitPruneError, in one line, if they are gone, damaged or edited."""
        return self._read(result, list)

    def read_both(self, result: Result) -> tuple[Answers, Answers]:
        """A result's answers, and those that it was compared with. Raises FitPruneError as `read_answers` does."""
        return self._read(result, result.both)

    def _read(self, result: Result, make: Callable[[Iterator[dict[str, Any]]], Read]) -> Read:
        """What is made of a result's records, which need not be in memory together."""
        file = f"{result.name}{ANSWERS_SUFFIX}"
        try:
            text = self.files.read(file)
            if result.answers_digest and hashlib.sha256(text.encode()).hexdigest()[:16] != result.answers_digest:
                raise ValueError("they are not those that were written with the result")
            return make(loads_lines(text))
        except (OSError, ValueError) as error:
            raise FitPruneError(f"cannot read the answers in {self.files.place}/{file}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
