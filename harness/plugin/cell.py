"""`RunCell`: what the `cell` fixture hands to a test."""

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from fitprune.errors import BudgetError, FitPruneError, SeesNoVideos, UnsupportedModel, one_line
from harness.cells import Cell
from harness.gate.wording import complaints
from harness.plugin.repeated import stopped
from harness.plugin.summary import CellReport
from harness.results.refusals import Kind, remove_refusal, write_refusal
from harness.results.result import Result
from harness.telling import telling

if TYPE_CHECKING:
    from harness.plugin.session import RunSession

_FIGURES = (
    "gate", "verdict", "max_drop", "needed", "score", "dense_score", "drop", "n", "full_n", "clusters",
    "flops", "dense_flops", "reduction", "seconds",
)  # fmt: skip
_LONGEST = 400  # characters of an exception's message
_COMPARED = ("with", "verdict", "allowed", "score", "drop", "n", "prefill_change")


class RunCell:
    """One cell of the run. `check()` is all that a suite's test does with it."""

    def __init__(self, cell: Cell, run: "RunSession", item: pytest.Item) -> None:
        self.cell = cell
        self.run = run
        self.item = item

    def check(self) -> Result:
        """Evaluate the cell and write its result, or find it in the results folder; fail the test when the gate says so, or
        the comparison with a saved run.

        A budget that the pruner cannot reach skips the test with the reason, as do videos for a model that sees none, and,
        where `--pruner all` brought it in, a model that the pruner cannot prune; any other error that a user can mend fails it,
        in one line. A cell without a result is noted in the results folder, until it has one. After cells that failed one after
        another with the same error, the test is skipped.
        """
        if reason := stopped(self.run.folder):
            self._report("not run", reason=reason)
            pytest.skip(f"not run: {reason}")
        measured = None
        try:
            with telling(self.run.say), self.run.bench.measuring(self.cell) as measured:
                result = self.run.keep(self.cell, measured)
        except (FitPruneError, OSError) as error:
            reason = one_line(error)
            unfit = isinstance(error, UnsupportedModel)
            if measured is None:
                self._note(reason, "cannot" if isinstance(error, BudgetError | UnsupportedModel) else "failed")
            if isinstance(error, BudgetError | SeesNoVideos) or (unfit and self.run.options.every):
                self._report("cannot", reason=reason)
                pytest.skip(f"cannot: {reason}")
            self._report("error", reason=reason, crashed=not isinstance(error, FitPruneError))
            pytest.fail(reason, pytrace=False)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
            if measured is None:
                self._note(reason, "failed")
            self._report("error", reason=reason, crashed=True)
            raise
        settings = self.run.options.settings
        remove_refusal(self.run.store.files, self.cell, settings.data, settings.limit)
        self._report(result.verdict or "pass", result=result, cached=measured.cached)
        found = properties(result, measured.cached)
        names = {name for name, _ in found}  # a plug-in that runs a failed test again keeps what it has
        self.item.user_properties[:] = [entry for entry in self.item.user_properties if entry[0] not in names] + found
        if said := complaints(result):
            pytest.fail("\n".join(said), pytrace=False)
        return result

    def _note(self, reason: str, kind: Kind) -> None:
        settings, command = self.run.options.settings, self.run.options.command(self.cell)
        known: dict[str, Any] = {"data": settings.data, "limit": settings.limit, "command": command, "kind": kind}
        with contextlib.suppress(OSError):  # what the cell's error says is worth more
            write_refusal(self.run.store.files, self.cell, reason, **known)

    def _report(
        self, outcome: str, *, result: Result | None = None, reason: str = "", cached: bool = False, crashed: bool = False
    ) -> None:
        self.item.stash[CellReport.KEY] = CellReport(self.cell, outcome, result, reason, cached, crashed)


def properties(result: Result, cached: bool) -> list[tuple[str, Any]]:
    """The figures that JUnit XML carries, as `<property>` of the test case; what is not known is left out."""
    record = result.to_json()
    figures = {name: record[name] for name in _FIGURES}
    figures |= dict(zip(("drop_low", "drop_high"), record["drop_ci95"], strict=True))
    figures |= {f"compared_{name}": record["compared"].get(name) for name in _COMPARED}
    figures |= dict(zip(("compared_drop_low", "compared_drop_high"), record["compared"].get("drop_ci95", ()), strict=False))
    return [(name, value) for name, value in [*figures.items(), ("cached", cached)] if value not in (None, "")]
