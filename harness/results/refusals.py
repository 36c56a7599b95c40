"""Refusals: cells without a result, for what a method cannot do or an error: small files in the results folder's `cannot/`.

So a method, or a suite, without a result keeps its place and its reason in the table.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, StrictFloat, StrictInt

from fitprune.errors import FitPruneError, one_line
from harness.cells import Cell
from harness.results.result import Result, now, result_name
from harness.results.strict_json import dumps, loads
from harness.results.validation import checked
from harness.storage.places import Place, files_at

SCHEMA = 1
FOLDER = "cannot"
Kind = Literal["cannot", "failed"]


@dataclass(frozen=True)
class Refusal:
    """A cell without a result, and why.

    Attributes:
        kind: `cannot` of what its method cannot run, a budget out of its reach or a model that it cannot prune; `failed` of
            any other error.
        reason: one line.
        data, limit: the questions that would have been asked, as in a result.
        command: what was typed to run this cell.
        date: UTC, ISO 8601.
    """

    cell: Cell
    reason: str
    data: str
    limit: int | None
    command: str
    date: str
    kind: Kind = "cannot"

    @property
    def text(self) -> str:
        """`cannot: it saves at most 40 %`."""
        return f"{self.kind}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """A dict of strict JSON values; the cell's fields stand beside the others."""
        record = dataclasses.asdict(self)
        return {"schema": SCHEMA, **record.pop("cell"), **record}

    @classmethod
    def from_json(cls, record: Any) -> "Refusal":
        """The refusal in a parsed file. Raises FitPruneError, in one line, on anything that is not one."""
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise FitPruneError(f"no record of a cell that could not run, of schema {SCHEMA}")
        read = checked(_Record.model_validate, record)
        cell = Cell(read.model, read.pruner, read.reduction, read.suite, read.recipe, read.positions)
        return cls(cell, read.reason, read.data, read.limit, read.command, read.date, read.kind)


class _Record(BaseModel):
    """A refusal's file, beside its schema: the cell's fields and the refusal's own, in one object."""

    model: str
    pruner: str
    reduction: StrictFloat | None = None
    suite: str
    recipe: str
    positions: str
    reason: str
    data: str
    limit: StrictInt | None = None
    command: str
    date: str
    kind: Kind = "cannot"


def write_refusal(
    folder: Place, cell: Cell, reason: str, *, data: str, limit: int | None, command: str, kind: Kind = "cannot"
) -> str:
    """Note, in the results folder, that a cell gave no result; the same cell's earlier note is replaced. Returns its name."""
    refusal = Refusal(cell, " ".join(reason.split()), data, limit, command, now(), kind)
    name = _name(cell, data, limit)
    files_at(folder).write(name, [json.dumps(refusal.to_json(), indent=1, ensure_ascii=False), "\n"])
    return name


def remove_refusal(folder: Place, cell: Cell, data: str, limit: int | None) -> None:
    """Take the note on a cell out of the folder: it has a result."""
    files_at(folder).remove(_name(cell, data, limit))


def _name(cell: Cell, data: str, limit: int | None) -> str:
    key = hashlib.sha256(dumps([dataclasses.astuple(cell), data, limit]).encode()).hexdigest()[:10]
    return f"{FOLDER}/{result_name(cell, key)}.json"


def read_refusals(folder: Place) -> tuple[list[Refusal], list[str]]:
    """The refusals of a results folder, oldest first, and one line for each file that could not be read."""
    files, refusals, notes = files_at(folder), [], []
    for name in files.names(FOLDER):
        try:
            refusals.append(Refusal.from_json(loads(files.read(f"{FOLDER}/{name}"))))
        except (FitPruneError, OSError, ValueError) as error:
            notes.append(f"{FOLDER}/{name} is damaged and left out: {one_line(error)}")
    return sorted(refusals, key=lambda refusal: refusal.date), notes


def standing(refusals: list[Refusal], results: list[Result]) -> list[Refusal]:
    """The refusals that no later result has overtaken; of two for one cell the newer."""
    finished: dict[tuple[Any, ...], str] = {}
    for result in results:
        place = (result.cell, result.data, result.limit)
        finished[place] = max(result.date, finished.get(place, ""))
    latest = {(refusal.cell, refusal.data, refusal.limit): refusal for refusal in refusals}
    return [refusal for place, refusal in latest.items() if refusal.date > finished.get(place, "")]
