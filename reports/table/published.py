"""Published figures of the methods in a table, on the 7B models: quoted with their sources, never measured here."""

import csv
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import resources

from harness.cells import DENSE, FITPRUNE
from harness.tasks.specs import SUITES

QUOTED = (
    "Quoted from the sources named, on other hardware, prompts and scoring than here, so not comparable with the table above "
    "to the point; MME in its own points."
)


@dataclass
class PublishedRow:
    """One method at one setting on one model, as published: suite → value as printed, and where it stands."""

    model: str
    method: str
    setting: str
    values: dict[str, str] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)


@dataclass
class PublishedTable:
    """The rows, and the suites that any of them has a figure for."""

    suites: list[str]
    rows: list[PublishedRow]

    @property
    def titles(self) -> list[str]:
        """The suites as people write them."""
        return [SUITES[suite].title if suite in SUITES else suite for suite in self.suites]


def published(methods: Collection[str]) -> PublishedTable:
    """What was published on the 7B models of `methods`, of FitPrune, and of the dense models that they start from."""
    shown = {*methods, FITPRUNE, DENSE}
    rows: dict[tuple[str, str, str], PublishedRow] = {}
    suites: dict[str, None] = {}
    for line in _lines():
        if line["method"] in shown and line["model"].endswith("-7b"):
            place = (line["model"], line["method"], line["setting"])
            row = rows.setdefault(place, PublishedRow(*place))
            row.values[line["suite"]] = line["value"]
            suites[line["suite"]] = None
            if line["source"] not in row.sources:
                row.sources.append(line["source"])
    models = list(dict.fromkeys(row.model for row in rows.values()))
    return PublishedTable(list(suites), sorted(rows.values(), key=lambda row: models.index(row.model)))


def _lines() -> list[dict[str, str]]:
    text = resources.files("reports.table").joinpath("published_results.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
