"""The results folder: one JSON file per cell, beside it the cell's answers, each written whole or not at all.

    llava-tiny-fitprune-0.5-gqa-1f0c9b2a77.json            the result
    llava-tiny-fitprune-0.5-gqa-1f0c9b2a77.answers.jsonl   one question per line

The name ends in a digest of everything that determines the result, so two runs can share a folder: they meet in one
file only where they would write the same. JSON is strict: a number that does not exist is `null`, never `NaN`.
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
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fitprune.errors import FitPruneError
from fitprune.files import replacing
from harness.cells import Cell

if TYPE_CHECKING:
    from harness.evaluate import Answer, Answers

SCHEMA = 1
ANSWERS_SUFFIX = ".answers.jsonl"
PACKAGES = ("fitprune-bench", "torch", "transformers", "lmms-eval", "tokenizers", "datasets", "pillow")

# Which fields make a cell the cell it is: the content key.
KEY_FIELDS = (
    "schema",
    "model",
    "revision",
    "pruner",
    "params",
    "suite",
    "metric",
    "data_digest",
    "limit",
    "generation",
    "seed",
    "versions",
    "device",
)


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
    data: str = ""
    data_digest: str = ""
    limit: int | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    max_drop: float | None = None
    verdict: str = ""
    command: str = ""
    note: str = ""
    tokens_per_layer: list[float] = field(
        default_factory=list
    )  # visual tokens left after each decoder layer, mean per question

    @property
    def cell(self) -> Cell:
        """The cell that gave it."""
        return Cell(self.model, self.pruner, self.reduction_asked, self.suite, self.recipe)

    @property
    def name(self) -> str:
        """The stem of the result's files: readable, and unique to the content key."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{self.cell.label(Path(self.model).name)}-{self.suite}")
        return f"{readable}-{content_key(self)}"

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

    def write(self, result: Result, answers: "Answers", dense: "Answers | None" = None) -> Path:
        """Write the answers, then the result that makes them count; each by a rename, so that a reader or a crash
        never sees half of one.

        With `dense`, each line also holds what the dense model answered to the question. Returns the path of the result.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        before = {answer.doc_id: answer for answer in dense.answers} if dense is not None else {}
        lines = (dumps(_answer_record(answer, before.get(answer.doc_id))) for answer in answers.answers)
        write_atomically(self.folder / f"{result.name}{ANSWERS_SUFFIX}", (line + "\n" for line in lines))
        path = self.folder / f"{result.name}.json"
        write_atomically(path, [json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False), "\n"])
        return path

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
        """The per-question records of a result. Raises FitPruneError, in one line, if they are gone or damaged."""
        path = self.folder / f"{result.name}{ANSWERS_SUFFIX}"
        try:
            with path.open(encoding="utf-8") as file:
                return [_loads(line) for line in file]
        except (OSError, ValueError) as error:
            raise FitPruneError(f"cannot read the answers in {path}: {_one_line(error)}") from None


def read_result(path: Path) -> Result:
    """The result in one file. Raises FitPruneError that names the file and what is wrong with it, in one line."""
    try:
        return Result.from_json(_loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise FitPruneError(f"{path.name} is damaged and left out: {_one_line(error)}") from None


def content_key(result: Result) -> str:
    """Ten hex digits of the SHA-256 over what determines a result: weights, pruner, suite, data, generation, seed,
    versions, device.
    """
    record = result.to_json()
    record["params"].pop("provenance", None)  # says when and how a recipe was fitted; its counts are what matters
    text = json.dumps({name: record[name] for name in KEY_FIELDS}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


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


def strict(value: Any) -> Any:
    """`value` with NaN and infinities as None, at any depth, so that it can be strict JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strict(inner) for inner in value]
    return value


def dumps(value: Any) -> str:
    """One line of strict JSON."""
    return json.dumps(strict(value), ensure_ascii=False, allow_nan=False)


def _answer_record(answer: "Answer", dense: "Answer | None") -> dict[str, Any]:
    record = dataclasses.asdict(answer)
    if dense is not None:
        record |= {"dense_answer": dense.answer, "dense_score": dense.score}
    return record


def write_atomically(path: Path, parts: Iterable[str]) -> None:
    """Write a text file so that `path` is at every moment either what it was or the whole of `parts`."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(parts)


def _refuse(literal: str) -> float:
    raise ValueError(f"{literal} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # made once: a folder holds a million lines


def _loads(text: str) -> Any:
    return _DECODER.decode(text)


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
