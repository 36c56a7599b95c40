"""A cell's result: what one file of a results folder holds, and how the file is called."""

import dataclasses
import datetime
import functools
import math
import platform
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import StrictFloat, StrictInt, TypeAdapter

from fitprune.errors import FitPruneError
from harness.answers import Answer, Answers
from harness.cells import Cell
from harness.results.key import content_key
from harness.results.strict_json import strict
from harness.results.validation import Number, checked

SCHEMA = 2
PACKAGES = ("fitprune-bench", "torch", "transformers", "lmms-eval", "tokenizers", "datasets", "pillow")
_OF_ANSWERS = ("suite", "metric", "data_digest", "generation", "statistic")


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
    score: Number
    dense_score: Number
    drop: Number
    drop_ci95: tuple[Number, Number]
    n: StrictInt
    flops: StrictFloat | None  # end to end, mean per question
    dense_flops: StrictFloat | None
    reduction: StrictFloat | None  # share of the visual tokens' FLOPs saved, scoring paid for
    latency_ms: dict[str, Any] | None
    memory_mb: StrictFloat | None
    versions: dict[str, str]
    device: str
    seed: StrictInt
    date: str
    schema: StrictInt = SCHEMA
    # Where the figures come from, beyond the fields that every reader may count on.
    reduction_asked: StrictFloat | None = None
    reduction_end_to_end: StrictFloat | None = None
    score_ci95: tuple[Number, Number] = (math.nan, math.nan)
    clusters: StrictInt = 0
    recipe: str = ""  # file of the recipe, if one was given
    positions_asked: str = ""  # in place of what the method's authors do; params say what was done
    model_asked: str = ""  # the family's name that `model` was taken for
    model_note: str = ""  # why this one, and how to get the other
    data: str = ""
    data_digest: str = ""
    limit: StrictInt | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, Number] = field(default_factory=dict)  # means per question
    weights: str = ""  # digest of all files of the checkpoint that decide an answer
    code: str = ""  # digest of all sources that can touch an answer
    task_code: str = ""  # digest of lmms-eval's folder of the task
    key: str = ""  # digest of what decides the outcome; the end of the file's name
    answers_digest: str = ""
    seconds: StrictFloat | None = None
    max_drop: StrictFloat | None = None
    verdict: str = ""
    command: str = ""
    note: str = ""
    tokens_per_layer: list[StrictFloat] = field(default_factory=list)  # visual tokens left after each decoder layer, mean
    gate: str = ""
    sequential: dict[str, Any] = field(default_factory=dict)  # margin and seed of a run that may stop early
    full_n: StrictInt | None = None  # questions that it would have asked at most; its interval is anytime-valid
    needed: StrictFloat | None = None  # questions that would decide, where the verdict is undecided
    dense_fault: str = ""  # what is wrong with the dense score, against which nothing is judged then
    compared: dict[str, Any] = field(default_factory=dict)  # with a saved run, see harness/gate/saved.py
    statistic: str = ""  # how the answers' scores make the score, see harness/answers.py
    replicates: list[Number] = field(default_factory=list)  # where they do not: the score of each half of the images
    dense_replicates: list[Number] = field(default_factory=list)

    @property
    def cell(self) -> Cell:
        """The cell that gave it."""
        return Cell(self.model, self.pruner, self.reduction_asked, self.suite, self.recipe, self.positions_asked)

    @property
    def name(self) -> str:
        """The stem of the result's files."""
        return result_name(self.cell, self.key or content_key(self.to_json()))

    def both(self, records: Iterable[Mapping[str, Any]]) -> tuple[Answers, Answers]:
        """The answers that it was written with, and those that it was compared with; texts of both are held once.

        Raises FitPruneError, in one line, on records that are none of answers.
        """
        own, dense = list[Answer](), list[Answer]()
        for record in records:
            try:
                own.append(Answer.from_record(record))
                dense.append(Answer.from_record(record, dense=True))
            except (KeyError, TypeError, ValueError):
                raise FitPruneError(f"the answers of {self.name} are damaged") from None
        alike: dict[str, Any] = {name: getattr(self, name) for name in _OF_ANSWERS}
        alike |= {"prompts": len(own), "seconds": self.seconds or 0.0}
        return (
            Answers(score=self.score, answers=own, replicates=self.replicates, **alike),
            Answers(score=self.dense_score, answers=dense, replicates=self.dense_replicates, **alike),
        )

    def to_json(self) -> dict[str, Any]:
        """A dict of strict JSON values."""
        return strict({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def from_json(cls, record: Any) -> "Result":
        """The result in a parsed file; fields of a newer version are passed over. Raises FitPruneError, in one line, on
        anything that is not a result.
        """
        if not isinstance(record, dict):
            raise FitPruneError("not a result: no JSON object")
        if record.get("schema") != SCHEMA:
            raise FitPruneError(f"has schema {record.get('schema')!r}, this version reads {SCHEMA}")
        return checked(_reader().validate_python, record)


@functools.cache
def _reader() -> TypeAdapter[Result]:
    return TypeAdapter(Result)


def result_name(cell: Cell, key: str) -> str:
    """The stem of a result's files: readable, and unique to the content key."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{cell.label(Path(cell.model).name)}-{cell.suite}")
    return f"{readable}-{key}"


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a score can depend on; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def now() -> str:
    """The present moment in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
