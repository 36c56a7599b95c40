"""Refusals: the cells that could not run, a small file each in the results folder's `cannot/`.

So a method without a result keeps its row and its reason in the table.
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, StrictFloat, StrictInt

from fitprune.errors import FitPruneError
from harness.cells import Cell
from harness.results.atomic import write_atomically
from harness.results.result import Result, now, result_name
from harness.results.strict_json import dumps, loads
from harness.results.validation import checked

SCHEMA = 1
FOLDER = "cannot"


@dataclass(frozen=True)
class Refusal:
    """A cell that a method cannot run, and why: a budget out of its reach, or a model that it cannot prune.

    Attributes:
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

    def to_json(self) -> dict[str, Any]:
        """A dict of strict JSON values; the cell's fields stand beside the others."""
        record = dataclasses.asdict(self)
        return {"schema": SCHEMA, "kind": FOLDER, **record.pop("cell"), **record}

    @classmethod
    def from_json(cls, record: Any) -> "Refusal":
        """The refusal in a parsed file. Raises FitPruneError, in one line, on anything that is not one."""
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise FitPruneError(f"no record of a cell that could not run, of schema {SCHEMA}")
        read = checked(_Record.model_validate, record)
        cell = Cell(read.model, read.pruner, read.reduction, read.suite, read.recipe, read.positions)
        return cls(cell, read.reason, read.data, read.limit, read.command, read.date)


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


def write_refusal(
    folder: str | os.PathLike[str], cell: Cell, reason: str, *, data: str, limit: int | None, command: str
) -> Path:
    """Note, in the results folder, that a cell could not run; the same cell's earlier note is replaced."""
    refusal = Refusal(cell, " ".join(reason.split()), data, limit, command, now())
    key = hashlib.sha256(dumps([dataclasses.astuple(cell), data, limit]).encode()).hexdigest()[:10]
    path = Path(folder) / FOLDER / f"{result_name(cell, key)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [json.dumps(refusal.to_json(), indent=1, ensure_ascii=False), "\n"])
    return path


def read_refusals(folder: str | os.PathLike[str]) -> tuple[list[Refusal], list[str]]:
    """The refusals of a results folder, oldest first, and one line for each file that could not be read."""
    refusals, notes = [], []
    for path in sorted((Path(folder) / FOLDER).glob("*.json")):
        try:
            refusals.append(Refusal.from_json(loads(path.read_text(encoding="utf-8"))))
        except (FitPruneError, OSError, ValueError) as error:
            notes.append(f"{FOLDER}/{path.name} is damaged and left out: {' '.join(str(error).split())}")
    return sorted(refusals, key=lambda refusal: refusal.date), notes


def standing(refusals: list[Refusal], results: list[Result]) -> list[Refusal]:
    """The refusals that no later result has overtaken; of two for one cell the newer."""
    finished: dict[tuple[Any, ...], str] = {}
    for result in results:
        place = (result.cell, result.data, result.limit)
        finished[place] = max(result.date, finished.get(place, ""))
    latest = {(refusal.cell, refusal.data, refusal.limit): refusal for refusal in refusals}
    return [refusal for place, refusal in latest.items() if refusal.date > finished.get(place, "")]
