"""`Bench`: runs cells in this process, one after another.

    names → resolved → answers → outcome → result

Work that several cells need is done once, whichever process comes first: once and for all, with what came of it in the results
folder, the dense answers of a model on a suite and a model's recipes for all budgets; once per run a pruner's latency.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

from fitprune import FitPruneError
from harness.bench.evaluation import Evaluation
from harness.bench.identity import Margin, conditions_of
from harness.bench.outcome import Measured, check, outcome
from harness.bench.resolved import Resolved, Resolver
from harness.bench.shelf import Shelf
from harness.bench.timing import Timing
from harness.bench.until_decided import until_decided
from harness.cells import Cell, CellSettings
from harness.models.gpu_memory import is_out_of_memory, no_memory
from harness.pruners.calibrated import Calibrated
from harness.pruners.of_cells import CellPruners
from harness.results.journal import Journal
from harness.results.once import RunFolder
from harness.results.store import Store


class Bench:
    """Runs cells in this process, with one model in memory at a time.

    Args:
        settings: what all cells share.
        shared: the folder through which the processes of the run share work.
        results: the results folder; None keeps nothing beyond the run.
        device: where models are loaded; None leaves it to the loader.
        processes: how many run cells at the same time, for the note beside a latency.
        rerun: measure cells anew that the results folder has.
        margin: points, per suite, of a run that stops asking as soon as a drop is known to be above or below; None
            asks all questions.
    """

    def __init__(
        self,
        settings: CellSettings,
        shared: RunFolder,
        results: Store | None = None,
        device: str | None = None,
        processes: int = 1,
        rerun: bool = False,
        margin: Margin | None = None,
    ) -> None:
        self.settings = settings
        self.results = results
        self.rerun = rerun
        self.shelf = Shelf(device)
        lasting, recipes = (shared, None) if results is None else (results.shared, results.write_recipe)
        self.pruners = CellPruners(settings, Calibrated(settings, lasting, self.shelf, recipes))
        self.resolver = Resolver(settings, self.shelf, self.pruners, conditions_of(settings), margin)
        self.evaluation = Evaluation(settings, self.shelf, shared, results, rerun)
        self.timing = Timing(settings, self.shelf, shared, processes)

    @contextlib.contextmanager
    def measuring(self, cell: Cell) -> Iterator[Measured]:
        """What a cell gave: found in the results folder, or measured, from where a killed run stopped.

        Inside, no other process is at this cell; the caller writes down what was measured. Raises as `run` does.
        """
        if self.results is None:
            raise FitPruneError("cells are kept in a results folder, and this bench has none")
        with self._naming_memory(cell):
            resolved = self.resolver.resolve(cell)
        with self.results.lock(resolved.key, f"{cell.label()} on {cell.suite}"):
            journal = self.results.journal(resolved.key)
            found, damage = (None, "") if self.rerun else _stored(self.results, resolved)
            if found is None:
                if self.rerun:
                    journal.remove()
                with self._naming_memory(cell):
                    found = self._measure(resolved, journal)
                notes = [note for note in (found.result.note, damage) if note]
                found.result = dataclasses.replace(found.result, note="; ".join(notes))
            yield found
            journal.remove()

    def run(self, cell: Cell) -> Measured:
        """Measure a cell. Raises BudgetError where the pruner cannot reach the budget, FitPruneError for whatever
        else a user can mend.
        """
        return self._measure(self.resolver.resolve(cell))

    @contextlib.contextmanager
    def _naming_memory(self, cell: Cell) -> Iterator[None]:
        """Inside, an exception for want of memory is a refusal that names the cell."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise no_memory(f"{cell.label()} on {cell.suite}", self.settings.batch_size) from None

    def _measure(self, resolved: Resolved, journal: Journal | None = None) -> Measured:
        if resolved.identity["sequential"]:
            pair = until_decided(self.evaluation, resolved, journal)
        else:
            pair = self.evaluation.pair(resolved, journal)
        check(resolved, pair)
        timed = self.timing.of(resolved)
        notes = resolved.pruner.notes(self.shelf.model(resolved.cell.model).model)
        return outcome(resolved, pair, timed, self.settings, notes, self.resolver.margin is not None)


def _stored(results: Store, resolved: Resolved) -> tuple[Measured | None, str]:
    """An earlier run's outcome, of the cell or of one with the same key; a note if it was damaged, and is put aside."""
    damage = ""
    for name in sorted(results.names(resolved.key), key=lambda name: name != resolved.name):
        try:
            result = results.find(name)
            records = results.read_answers(result)
        except FitPruneError as error:
            results.set_aside(name)
            damage = f"{error}; it was put aside and the cell measured again"
            continue
        found = Measured.stored(resolved.cell, result, records)
        if name != resolved.name:
            results.write(found.result, found.answers, None if resolved.cell.is_dense else found.dense)
        return found, ""
    return None, damage
