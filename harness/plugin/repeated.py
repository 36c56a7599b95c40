"""`Repeated`: stops a run whose cells fail one after another with the same error, which is printed once.

The process that prints counts, as reports come in; workers learn of the end by a file in the folder that the run shares.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.plugin.summary import CellReport

IN_A_ROW = 3
_FILE = "stopped"
# What xdist reports as `when` for a test whose worker died.
_DIED = "???"


@dataclass
class Repeated:
    """Counts errors as reports of cells come in.

    An exception counts by its type and message, numbers left out. A refusal, which is one line, counts by its words, and only
    if several methods say the same: what one method cannot do stops no other. A cell that was measured ends the row,
    unless it is the dense one, which proves nothing of pruning, or an earlier run's.

    Attributes:
        folder: what the run shares.
        row: (cause, method) of the cells that failed last, one after another.
        printed: causes whose traceback was printed, and the test that it belongs to.
    """

    folder: Path
    row: list[tuple[str, str]] = field(default_factory=list)
    printed: dict[str, str] = field(default_factory=dict)

    def reported(self, report: pytest.TestReport, cell: CellReport | None) -> None:
        """Count a test; one whose exception was printed already is left with a line in place of the traceback."""
        if report.failed and report.when == _DIED:
            self._failed("a worker process died", "", crashed=True)
        elif cell is None:
            return
        elif cell.outcome == "error":
            if cell.crashed and (first := self.printed.setdefault(cell.cause, report.nodeid)) != report.nodeid:
                report.longrepr = f"the same error as in {first}"
                report.sections = []
            self._failed(cell.cause, cell.cell.pruner, cell.crashed, cell.reason)
        elif cell.result is not None and not cell.cached and not cell.cell.is_dense:
            self.row.clear()

    def _failed(self, cause: str, method: str, crashed: bool, said: str = "") -> None:
        if self.row and self.row[-1][0] != cause:
            self.row.clear()
        self.row.append((cause, method))
        methods = {method for _, method in self.row}
        if len(self.row) == IN_A_ROW and not crashed and len(methods) == 1:
            self.row.pop(0)  # one method's refusal; it may become several methods'
        elif len(self.row) >= IN_A_ROW:
            stop(self.folder, f"{IN_A_ROW} cells, one after another, failed with the same error: {said or cause}")


def stop(folder: Path, reason: str) -> None:
    """Let no more cells of the run begin; the first reason stands."""
    if not (folder / _FILE).exists():
        (folder / _FILE).write_text(reason, encoding="utf-8")


def stopped(folder: Path) -> str:
    """Why no more cells of the run begin; empty while they do."""
    path = folder / _FILE
    return path.read_text(encoding="utf-8") if path.exists() else ""
