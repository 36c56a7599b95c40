"""The table at the end of a run: one for a wide terminal and for CI logs, below one another for a narrow terminal."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import pytest

from harness.cells import Cell
from harness.gate.saved import comparison_lines
from harness.gate.wording import asked, interval, questions
from harness.plugin.options import RunOptions
from harness.results.result import Result
from harness.results.store import Store
from harness.results.table import Table, tables_of
from harness.results.texts import AVERAGE, COLUMNS, ROUGHLY, TIME, row_texts
from harness.tasks.specs import SUITES, suite_title

# What differs between two crashes of one cause: addresses and numbers, such as sizes, cells' reductions, process ids.
_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?")
UNGATED = "no gate was asked for, so no drop fails a cell; --max-drop POINTS sets what one may lose"


@dataclass
class CellReport:
    """What became of one cell, as it travels from a worker to the process that prints the summary.

    `outcome`: "pass", "fail" or "undecided" with a result; "cannot", "error" or "not run" with a reason. `cached`: the
    result is an earlier run's. `crashed`: the error is an exception, not a refusal in one line.
    """

    KEY: ClassVar[pytest.StashKey["CellReport"]] = pytest.StashKey()

    cell: Cell
    outcome: str
    result: Result | None = None
    reason: str = ""
    cached: bool = False
    crashed: bool = False

    @property
    def cause(self) -> str:
        """What cells that failed for the same reason share: a crash's type and message without numbers, a refusal's words."""
        return _VARYING.sub("#", self.reason) if self.crashed else self.reason

    def to_json(self) -> dict[str, Any]:
        """Plain values, which xdist can carry."""
        return vars(self) | {"cell": asdict(self.cell), "result": self.result and self.result.to_json()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "CellReport":
        """What `to_json` made of one."""
        result = record["result"] and Result.from_json(record["result"])
        return cls(**record | {"cell": Cell(**record["cell"]), "result": result})


def write_summary(terminal: Any, reports: Sequence[CellReport], options: RunOptions, store: Store) -> None:
    """One table of all models on the same suites, then what a reader must know."""
    terminal.section("accuracy against FLOPs")
    together: dict[tuple[str, ...], list[Table]] = {}
    results = [report.result for report in reports if report.result is not None]
    made = tables_of(results, list(SUITES), suites={report.cell.suite for report in reports}, store=store)
    for table in made:
        together.setdefault((table.data, *table.suites, "of", *table.averaged), []).append(table)
    width = terminal._tw.fullwidth if terminal.isatty or "COLUMNS" in os.environ else None
    for tables in together.values():
        for line in [*headline(tables, options).splitlines(), *lines_of(tables, options, width)]:
            terminal.line(line)
        terminal.line("")
    for line in options.model_notes():
        terminal.line(line)
    if options.max_drop is None:
        terminal.line(UNGATED)
    for remark in [*remarks(reports), *dict.fromkeys(f"note: {note}" for table in made for note in table.average_notes())]:
        terminal.line(remark)
    if any(row.roughly_timed for table in made for row in table.rows):
        terminal.line(ROUGHLY)
    for line in comparison_lines(results):
        terminal.line(line)


def headline(tables: Sequence[Table], options: RunOptions | None = None) -> str:
    """What the table is about, and how to read its cells."""
    sizes = sorted({result.n for table in tables for result in table.results})
    n = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]}-{sizes[-1]}"
    models = _name(tables[0], options) if len(tables) == 1 else f"{len(tables)} models"
    timed = ", on the CPU" * all(table.timed_on == ["cpu"] for table in tables)
    return (
        f"{models}, {tables[0].data} data, {n} questions a suite\n"
        f"score (drop ± half-width of its 95 % interval) in points\ntime: a prefill's, of the dense model's{timed}"
    )


def lines_of(tables: Sequence[Table], options: RunOptions | None = None, width: int | None = None) -> list[str]:
    """Tables on the same suites as one, aligned; of several models, rows follow their name.

    What does not fit a terminal of `width` columns stands below, block after block of columns, each with the rows' names.
    """
    suites = tables[0].suites
    heads = {AVERAGE: tables[0].average_title, TIME: "time"}
    cells = [["", *(heads.get(name, name) for name in COLUMNS), *map(suite_title, suites)]]
    names: dict[int, str] = {}
    for table in tables:
        if len(tables) > 1:
            names[len(cells)] = _name(table, options)
            cells.append([""] * len(cells[0]))
        cells += [[row.name, *row_texts(row, table, suite_title).values()] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = [[text.ljust(each + 2) for text, each in zip(line, widths, strict=True)] for line in cells]
    blocks, room = [[0]], math.inf if width is None else width + 2
    for column in range(1, len(widths)):
        if len(blocks[-1]) > 1 and sum(len(aligned[0][place]) for place in [*blocks[-1], column]) > room:
            blocks.append([0])
        blocks[-1].append(column)
    lines: list[str] = []
    for block in blocks:
        lines += [""] * bool(lines)
        lines += [names.get(at, "".join(line[column] for column in block).rstrip()) for at, line in enumerate(aligned)]
    return lines


def _name(table: Table, options: RunOptions | None) -> str:
    """The model, also by the family's name that it was asked for by, and its revision."""
    model = table.model if options is None else options.chosen_as(table.model).label
    return f"{model} ({table.apart or table.revision[:12]})"


def remarks(reports: Sequence[CellReport]) -> list[str]:
    """Cells without a result, undecided ones, and the notes in the results, each text once."""
    lines = []
    crashes: dict[str, list[CellReport]] = {}
    refused: dict[tuple[str, str], list[str]] = {}
    for report in reports:
        if report.crashed:
            crashes.setdefault(report.cause, []).append(report)
        elif report.outcome in ("cannot", "error"):
            refused.setdefault((report.outcome, report.reason), []).append(report.cell.label())
    skipped = sum(report.outcome == "not run" for report in reports)
    if any(report.outcome == "fail" for report in reports):
        lines.append("✗ above --max-drop with 95 % confidence")
    if cached := sum(report.cached for report in reports):
        lines.append(f"cached: {cached} of {len(reports)} cells are earlier runs' (--rerun measures them again)")
    for report in reports:
        if report.result is not None and report.result.sequential:
            result = report.result
            lines.append(
                f"sequential: {report.cell.label()} on {report.cell.suite}: {report.outcome} after {asked(result)} questions; "
                f"{interval(result)} {result.drop_ci95[0]:.1f} to {result.drop_ci95[1]:.1f}"
            )
        if report.outcome == "not run":
            lines.append(f"not run: {skipped} of {len(reports)} cells; {report.reason}; the same command goes on with them")
        elif report.crashed:
            crashed = crashes[report.cause]
            lines.append(
                f"error: {', '.join(f'{each.cell.label()} on {each.cell.suite}' for each in crashed)}: {crashed[0].reason}"
            )
        elif report.outcome in ("cannot", "error"):
            same = dict.fromkeys(refused[report.outcome, report.reason])
            lines.append(f"{report.outcome}: {', '.join(same)}: {report.reason}")
        elif report.outcome == "undecided":
            lines.append(_undecided(report))
        if report.result is not None and report.result.note:
            lines += [f"note: {note}" for note in report.result.note.split("; ")]
    return list(dict.fromkeys(lines))


def _undecided(report: CellReport) -> str:
    result, where = report.result, f"undecided: {report.cell.label()} on {report.cell.suite}"
    if result is None or not math.isfinite(result.drop_ci95[0]):
        return f"{where}: too few images for an interval"
    return f"{where}: {questions(result.needed)}"
