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
import datetime
import functools
import hashlib
import json
import math
import os
import platform
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from fitprune.errors import FitPruneError
from fitprune.files import replacing
from harness.cells import Cell
from harness.results.journal import Journal
from harness.results.key import content_key, digest_of
from harness.results.once import RunFolder
from harness.results.strict_json import dumps, loads, strict

if TYPE_CHECKING:
    from harness.answers import Answers

SCHEMA = 2
ANSWERS_SUFFIX = ".answers.jsonl"
PACKAGES = ("fitprune-bench", "torch", "transformers", "lmms-eval", "tokenizers", "datasets", "pillow")


@dataclass
class Result:
    """What a cell gave, and everything needed to run it again. `score`, `drop` and intervals are points of 0-100,
    costs are per question.
    """

    model: str
    revision: str
    pruner: str  # registry name: "fitprune", "fastv", "random", "dense", …
    params: dict[str, Any]
    suite: str
    metric: str
    score: float
    dense_score: float
    drop: float
    drop_ci95: tuple[float, float]
    n: int
    flops: float | None  # end to end, mean per question
    dense_flops: float | None
    reduction: float | None  # share of the visual tokens' FLOPs saved, scoring paid for
    latency_ms: dict[str, Any] | None
    memory_mb: float | None
    versions: dict[str, str]
    device: str
    seed: int
    date: str
    schema: int = SCHEMA
    # Where the figures come from, beyond the fields that every reader may count on.
    reduction_asked: float | None = None
    reduction_end_to_end: float | None = None
    score_ci95: tuple[float, float] = (math.nan, math.nan)
    clusters: int = 0
    recipe: str = ""  # file of the recipe, if one was given
    positions_asked: str = ""  # in place of what the method's authors do; params say what was done
    data: str = ""
    data_digest: str = ""
    limit: int | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)  # means per question
    weights: str = ""  # digest of all files of the checkpoint that decide an answer
    code: str = ""  # digest of the method's source
    answers_digest: str = ""
    seconds: float | None = None
    max_drop: float | None = None
    verdict: str = ""
    command: str = ""
    note: str = ""
    tokens_per_layer: list[float] = field(default_factory=list)  # visual tokens left after each decoder layer, mean
    gate: str = ""
    sequential: dict[str, Any] = field(default_factory=dict)  # margin and seed of a run that may stop early
    full_n: int | None = None  # questions that it would have asked at most; its interval is anytime-valid
    needed: float | None = None  # questions that would decide, where the verdict is undecided
    compared: dict[str, Any] = field(default_factory=dict)  # with a saved run, see harness/gate/saved.py

    @property
    def cell(self) -> Cell:
        """The cell that gave it."""
        return Cell(self.model, self.pruner, self.reduction_asked, self.suite, self.recipe, self.positions_asked)

    @property
    def name(self) -> str:
        """The stem of the result's files."""
        return result_name(self.cell, content_key(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """A dict of strict JSON values."""
        return strict({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def from_json(cls, record: Any) -> "Result":
        """The result in a parsed file. Raises FitPruneError, in one line, on anything that is not one."""
        if not isinstance(record, dict):
            raise FitPruneError("not a result: no JSON object")
        if record.get("schema") != SCHEMA:
            raise FitPruneError(f"has schema {record.get('schema')!r}, this version reads {SCHEMA}")
        if missing := sorted(f.name for f in dataclasses.fields(cls) if _required(f) and f.name not in record):
            raise FitPruneError(f"lacks {', '.join(missing)}")
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        for name in ("score", "dense_score", "drop"):
            values[name] = _number(name, values[name])
        for name in ("drop_ci95", "score_ci95"):
            pair = values.get(name, (None, None))
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise FitPruneError(f"{name} is not a pair of numbers")
            values[name] = tuple(_number(name, end) for end in pair)
        for name in ("flops", "dense_flops", "reduction", "reduction_asked", "memory_mb"):
            if values.get(name) is not None:
                values[name] = _number(name, values[name])
        for name in ("model", "pruner", "suite", "metric", "date"):
            if not isinstance(values[name], str):
                raise FitPruneError(f"{name} is not a text")
        for name, kind in (("params", dict), ("versions", dict), ("n", int)):
            if not isinstance(values[name], kind):
                raise FitPruneError(f"{name} is not {'a number' if kind is int else 'an object'}")
        if not isinstance(values["latency_ms"], dict | None):
            raise FitPruneError("latency_ms is not an object")
        layers = values.get("tokens_per_layer", [])
        if not isinstance(layers, list) or not all(isinstance(count, int | float) for count in layers):
            raise FitPruneError("tokens_per_layer is not a list of numbers")
        return cls(**values)


class StoredResults(NamedTuple):
    """The readable results of a folder, oldest first, and one line for each file that could not be read."""

    results: list[Result]
    notes: list[str]


class Store:
    """A results folder. Making the object touches nothing; the folder appears with the first result."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

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

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Inside, no other process is at the cell with this key. A process that dies gives up its locks."""
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            yield

    def journal(self, key: str) -> Journal:
        """The journal of the cell with this key, with what an earlier run left in it."""
        return Journal(self.folder / "journals" / f"{key}.jsonl")

    def write(self, result: Result, answers: "Answers", dense: "Answers | None" = None) -> Path:
        """Write the answers, then the result that makes them count; each by a rename, so that a reader or a crash
        never sees half of one.

        With `dense`, each line also holds what the dense model answered to the question. Returns the path of the result.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [dumps(record) + "\n" for record in answers.to_records(dense)]
        write_atomically(self.folder / f"{result.name}{ANSWERS_SUFFIX}", lines)
        record = dataclasses.replace(result, answers_digest=_digest("".join(lines))).to_json()
        path = self.folder / f"{result.name}.json"
        sealed = record | {"digest": digest_of(record)}
        write_atomically(path, [json.dumps(sealed, indent=1, ensure_ascii=False, allow_nan=False), "\n"])
        return path

    def find(self, name: str) -> Result | None:
        """The result of that name, with its answers whole; None if there is none.

        Raises FitPruneError, in one line, if either file was damaged or edited.
        """
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        result = read_result(path)
        self.read_answers(result)
        return result

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
            return [loads(line) for line in text.split("\n") if line]
        except (OSError, ValueError) as error:
            raise FitPruneError(f"cannot read the answers in {path}: {_one_line(error)}") from None


def read_result(path: Path) -> Result:
    """The result in one file. Raises FitPruneError that names the file and what is wrong with it, in one line."""
    try:
        record = loads(path.read_text(encoding="utf-8"))
        sealed = record.pop("digest", None) if isinstance(record, dict) else None
        result = Result.from_json(record)
        if sealed != digest_of(record):
            raise ValueError("its content is not what was written")
        return result
    except (OSError, ValueError) as error:
        raise FitPruneError(f"{path.name} is damaged and left out: {_one_line(error)}") from None


def result_name(cell: Cell, key: str) -> str:
    """The stem of a result's files: readable, and unique to the content key."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{cell.label(Path(cell.model).name)}-{cell.suite}")
    return f"{readable}-{key}"


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a score can depend on; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def now() -> str:
    """The present moment in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def write_atomically(path: Path, parts: Iterable[str]) -> None:
    """Write a text file so that `path` is at every moment either what it was or the whole of `parts`."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(parts)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _number(name: str, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FitPruneError(f"{name} is not a number")
    return float(value)


def _required(field: dataclasses.Field) -> bool:  # type: ignore[type-arg]
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
