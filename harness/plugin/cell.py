"""What the `cell` fixture hands to a test."""

from typing import TYPE_CHECKING

import pytest

from fitprune.errors import BudgetError, FitPruneError
from harness.cells import Cell
from harness.plugin.gate import failure_message
from harness.plugin.summary import CellReport
from harness.statistics import Verdict
from harness.store import Result

if TYPE_CHECKING:
    from harness.plugin.session import RunSession

_FIGURES = ("score", "drop", "n", "flops", "reduction")


class RunCell:
    """One cell of the run. `check()` is all that a suite's test does with it."""

    def __init__(self, cell: Cell, run: "RunSession", item: pytest.Item) -> None:
        self.cell = cell
        self.run = run
        self.item = item

    def check(self) -> Result:
        """Evaluate the cell and write its result, or find it in the results folder; fail the test when the drop is above
        `--max-drop` with 95 % confidence.

        A budget that the pruner cannot reach skips the test with the reason; any other error that a user can mend
        fails it, in one line.
        """
        try:
            with self.run.bench.measuring(self.cell) as measured:
                result = self.run.keep(self.cell, measured)
        except BudgetError as error:
            self._report("cannot", reason=str(error))
            pytest.skip(f"cannot: {error}")
        except (FitPruneError, OSError) as error:
            reason = " ".join(str(error).split())
            self._report("error", reason=reason)
            pytest.fail(reason, pytrace=False)
        self._report(result.verdict, result=result, cached=measured.cached)
        self.item.user_properties += [(name, getattr(result, name)) for name in _FIGURES]
        self.item.user_properties.append(("cached", measured.cached))
        if result.verdict == Verdict.FAIL:
            pytest.fail(failure_message(result), pytrace=False)
        return result

    def _report(self, outcome: str, *, result: Result | None = None, reason: str = "", cached: bool = False) -> None:
        self.item.stash[CellReport.KEY] = CellReport(self.cell, outcome, result, reason, cached)
