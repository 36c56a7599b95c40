"""Published figures of the methods in a table, on the 7B models: quoted with their sources, never measured here."""

from collections.abc import Collection
from dataclasses import dataclass

from harness.cells import DENSE, FITPRUNE
from harness.published.tables import columns, tables

QUOTED = (
    "Quoted from the sources named, on other hardware, prompts and scoring than here, so not comparable with the table above "
    "to the point; MME in its own points."
)


@dataclass
class QuotedRow:
    """One method at one setting on one model, as one source has it: column → value as printed."""

    model: str
    method: str
    setting: str
    values: dict[str, str]
    source: str


@dataclass
class Quoted:
    """The rows, and the columns that any of them has a figure in."""

    suites: list[str]
    rows: list[QuotedRow]

    @property
    def titles(self) -> list[str]:
        """The columns as people write them."""
        return [columns()[name].title for name in self.suites]


def published(methods: Collection[str]) -> Quoted:
    """What was published on the 7B models of `methods`, of FitPrune, and of the dense models that they start from."""
    shown = {*methods, FITPRUNE, DENSE}
    rows = [
        QuotedRow(table.model, row.method, row.setting.name, dict(row.values), table.source)
        for table in tables().values()
        for row in table.rows
        if row.pruner in shown and table.model.endswith("-7b")
    ]
    models = list(dict.fromkeys(row.model for row in rows))
    found = [name for name in columns() if any(name in row.values for row in rows)]
    return Quoted(found, sorted(rows, key=lambda row: models.index(row.model)))
