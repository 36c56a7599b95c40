"""The table at the end of a run, for terminals of 160 columns and for CI logs."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import pytest

from harness.cells import Cell
from harness.plugin.options import RunOptions
from harness.store import Result
from harness.table import Figure, Table, tables_of


@dataclass
class CellReport:
    """What became of one cell, as it travels from a worker to the process that prints the summary.

    `outcome`: "pass", "fail" or "undecided" with a result; "cannot" or "error" with a reason.
    """

    KEY: ClassVar[pytest.StashKey["CellReport"]] = pytest.StashKey()

    cell: Cell
    outcome: str
    result: Result | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, which xdist can carry."""
        return {
            "cell": asdict(self.cell),
            "outcome": self.outcome,
            "result": None if self.result is None else self.result.to_json(),
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "CellReport":
        """What `to_json` made of one."""
        result = None if record["result"] is None else Result.from_json(record["result"])
        return cls(Cell(**record["cell"]), record["outcome"], result, record["reason"])


def write_summary(terminal: Any, reports: Sequence[CellReport], options: RunOptions) -> None:
    """One table per model, then what a reader must know."""
    from harness.tasks import SUITES

    terminal.section("accuracy against FLOPs")
    for table in tables_of([report.result for report in reports if report.result is not None], list(SUITES)):
        _sort_rows(table, options)
        terminal.line(headline(table))
        for line in lines_of(table):
            terminal.line(line)
        terminal.line("")
    for remark in remarks(reports):
        terminal.line(remark)


def headline(table: Table) -> str:
    """What the table is about, and how to read its cells."""
    sizes = sorted({result.n for result in table.results})
    n = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}-{sizes[-1]}"
    what = f"{table.model} ({table.revision[:12]}), {table.data} data, {n} questions a suite"
    return f"{what}; score (drop±95 % half-width) in points"


def lines_of(table: Table) -> list[str]:
    """The table as aligned text; failed cells end in `!`."""
    cells = [["", "saved", "GFLOPs", "prefill", "average", *table.suites]]
    for row in table.rows:
        share = "" if math.isnan(row.flops_share) else f" {row.flops_share:.0%}"
        cells.append(
            [
                row.name,
                _number(row.reduction, ".3f"),
                _number(row.flops / 1e9, ".3g") + share,
                _number(row.speedup, ".2f") + "x",
                figure_text(row.average(table.suites)),
                *(figure_text(row.figure(suite)) for suite in table.suites),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    gaps = [" "] * 4 + ["  "] * len(table.suites) + [""]
    return [
        "".join(text.ljust(width) + gap for text, width, gap in zip(line, widths, gaps, strict=True)).rstrip() for line in cells
    ]


def figure_text(figure: Figure | None) -> str:
    """`88.1 (3.9±1.2)`; a dense figure has its score alone, a missing one is `-`."""
    if figure is None:
        return "-"
    if math.isnan(figure.drop):
        return _number(figure.score, ".1f")
    drop = f"{_number(figure.drop, '.1f')}±{_number(figure.drop_half_width, '.1f')}"
    return f"{_number(figure.score, '.1f')} ({drop}){'!' if figure.failed else ''}"


def remarks(reports: Sequence[CellReport]) -> list[str]:
    """Cells without a result, undecided ones, and the notes in the results, each text once."""
    lines = []
    if any(report.outcome == "fail" for report in reports):
        lines.append("! above --max-drop with 95 % confidence")
    for report in reports:
        if report.outcome in ("cannot", "error"):
            lines.append(f"{report.outcome}: {report.cell.label()}: {report.reason}")
        elif report.outcome == "undecided":
            lines.append(f"undecided: {report.cell.label()} on {report.cell.suite}: too few images for an interval")
        if report.result is not None and report.result.note:
            lines += [f"note: {note}" for note in report.result.note.split("; ")]
    return list(dict.fromkeys(lines))


def _sort_rows(table: Table, options: RunOptions) -> None:
    order = {name: place for place, name in enumerate(options.pruners)}
    table.rows[1:] = sorted(table.rows[1:], key=lambda row: (order.get(row.cell.pruner, len(order)), row.cell.reduction or 0))


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
