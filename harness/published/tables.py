"""The published tables: one file each in `tables/`, and what their columns mean in `columns.toml`.

A figure stands in one table alone, with its source; nothing is averaged over tables, since dense scores, prompts and rivals'
code differ from one to the next.
"""

import csv
import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from fitprune.errors import unknown_name

CALLED = {"prumerge+": "prumerge", "prumerge": "prumerge, without its plus"}
"""Methods that tables name otherwise than this package does."""


@dataclass(frozen=True)
class Column:
    """A column of published tables.

    Attributes:
        title: as people write it.
        suites: names of suites that measure the same, the best first.
        scale: what a perfect score is printed as.
        differs: suite → in what it scores otherwise than papers do.
        floor: whether lmms-eval's scoring reproduces a dense model's printed score.
    """

    name: str
    title: str
    suites: tuple[str, ...] = ()
    scale: float = 100.0
    differs: Mapping[str, str] = field(default_factory=dict)
    floor: bool = False

    def points(self, value: str) -> float:
        """A printed score on the scale of 0 to 100."""
        return float(value) * 100 / self.scale


@dataclass(frozen=True)
class Setting:
    """How much a table's rows prune: as printed, and as one of these; all None where the table has no such figure.

    Attributes:
        tokens: visual tokens, of the table's `visual_tokens`.
        pruned: share of the visual tokens that is pruned.
        own: the reduction that FitPrune's authors' code is asked for.
        tflops: of a whole prompt, pruned and dense.
    """

    name: str
    tokens: int | None = None
    pruned: float | None = None
    own: float | None = None
    tflops: tuple[float, float] | None = None


@dataclass(frozen=True)
class PublishedRow:
    """A method at a setting: column → value, as printed."""

    method: str
    setting: Setting
    values: Mapping[str, str]

    @property
    def pruner(self) -> str:
        """The method by the name that it has here, if it is here."""
        return CALLED.get(self.method, self.method)


@dataclass(frozen=True)
class PublishedTable:
    """One table of one publication.

    Attributes:
        source: where it is printed.
        model: the registry name of the model that it is of, if it is registered.
        visual_tokens: of a prompt of the dense model, as the table counts them.
        protocol: what is known of how it was made, in words: scores, runs, tokens, positions.
        cannot: why no cell of it can be measured here; empty where some may be.
    """

    name: str
    source: str
    model: str
    visual_tokens: int
    protocol: Mapping[str, str]
    rows: tuple[PublishedRow, ...]
    cannot: str = ""

    @property
    def columns(self) -> list[str]:
        """All columns that any row has a value in, in `columns.toml`'s order."""
        return [name for name in columns() if any(name in row.values for row in self.rows)]


def find_table(name: str) -> PublishedTable:
    """The table of that name. Raises FitPruneError with the nearest names."""
    if name not in tables():
        raise unknown_name("table", name, tables())
    return tables()[name]


@functools.cache
def tables() -> Mapping[str, PublishedTable]:
    """All tables, by name."""
    folder = resources.files("harness.published").joinpath("tables")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    texts = {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}
    return {name: _table(name, tomllib.loads(text)) for name, text in texts.items()}


@functools.cache
def columns() -> Mapping[str, Column]:
    """All columns, by name."""
    text = resources.files("harness.published").joinpath("columns.toml").read_text(encoding="utf-8")
    return {name: _column(name, entry) for name, entry in tomllib.loads(text).items()}


def dense_scores(model: str) -> Iterator[tuple[str, float, str]]:
    """(suite, points, source) of each printed score of a dense model that lmms-eval's scoring reproduces."""
    for table in tables().values():
        for row in table.rows if table.model == model and not table.cannot else ():
            if row.method == "dense":
                for name, value in row.values.items():
                    column = columns()[name]
                    if column.floor:
                        yield column.suites[0], column.points(value), table.source


def _column(name: str, entry: dict[str, Any]) -> Column:
    return Column(name, **{"title": name} | entry | {"suites": tuple(entry["suites"])})


def _table(name: str, entry: dict[str, Any]) -> PublishedTable:
    rows = tuple(row for setting in entry.pop("settings") for row in _rows(setting))
    return PublishedTable(name, **entry, rows=rows)


def _rows(entry: dict[str, Any]) -> Iterator[PublishedRow]:
    lines = csv.DictReader(entry.pop("rows").strip().splitlines())
    setting = Setting(**entry | ({"tflops": tuple(entry["tflops"])} if "tflops" in entry else {}))
    for line in lines:
        method = line.pop("method")
        yield PublishedRow(method, setting, {name: value for name, value in line.items() if value})
