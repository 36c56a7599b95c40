"""`run_paper`: measures a paper's cells as a run of the suites does: from the results folder, from a journal, or anew."""

import dataclasses
from collections.abc import Callable, Mapping

from fitprune.errors import FitPruneError, one_line
from harness.bench.again import suites_command
from harness.bench.bench import Bench
from harness.cells import Cell
from harness.gate.floor import dense_fault
from harness.models.family_names import ChosenModel
from harness.paper.cells import Paper
from harness.results.result import Result
from harness.results.store import Store
from harness.tasks.specs import find_suite
from harness.telling import telling

Outcome = Result | str
"""What a cell gave, or why it gave nothing."""


def run_paper(
    paper: Paper, bench: Bench, store: Store, chosen: ChosenModel, device: str | None, say: Callable[[str], None]
) -> Mapping[Cell, Outcome]:
    """The outcome of every cell that can run, each written to the results folder as soon as it is there.

    A cell that a user can mend, or whose budget is out of reach, has its reason and stops no other. `say` is handed a line for
    each cell.
    """
    found: dict[Cell, Outcome] = {}
    for cell in paper.runnable:
        where = f"[{len(found) + 1}/{len(paper.runnable)}] {cell.label()} on {cell.suite}"
        try:
            with telling(say), bench.measuring(cell) as measured:
                fault = dense_fault(measured.result, measured.dense, store, find_suite(cell.suite).chance)
                result = dataclasses.replace(
                    measured.result,
                    dense_fault=fault,
                    command=_command(cell, bench, device),
                    model_asked=chosen.asked if chosen.note else "",
                    model_note=chosen.note,
                )
                if not measured.cached:
                    store.write(result, measured.answers, None if cell.is_dense else measured.dense)
        except FitPruneError as error:
            found[cell] = one_line(error)
            say(f"{where}: {found[cell]}")
        else:
            found[cell] = result
            say(f"{where}: {result.score:.1f}{' (cached)' if measured.cached else ''}")
    return found


def _command(cell: Cell, bench: Bench, device: str | None) -> str:
    """What runs the cell again as one of the suites'."""
    settings = dataclasses.replace(bench.settings, reductions=() if cell.reduction is None else (cell.reduction,))
    return suites_command([cell.suite], cell.model, [cell.pruner], settings, recipe=cell.recipe, device=device)
