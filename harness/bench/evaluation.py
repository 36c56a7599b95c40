"""`Evaluation`: a resolved cell's answers and what they cost; the dense model's once for all cells, processes and runs."""

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.answering.evaluate import evaluate_cell
from harness.answers import ANSWER, Answer, Answers
from harness.bench.resolved import Resolved
from harness.bench.shelf import Shelf
from harness.cells import CellSettings
from harness.cost.tally import Tally
from harness.results.journal import Journal
from harness.results.key import digest_of
from harness.results.once import RunFolder, readable
from harness.results.store import Store
from harness.tasks.build import build_task

if TYPE_CHECKING:
    from harness.answering.batching import Finished


@dataclass
class Evaluated:
    """A model's answers to a suite, dense or pruned, and what they cost: FLOPs per question, share of visual-token
    FLOPs saved, visual tokens left after each decoder layer (mean per question).
    """

    answers: Answers
    flops: float
    reduction: float
    tokens_per_layer: list[float] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What processes and runs share, as `from_json` reads it. Answers are columns: there may be very many."""
        answers = {part.name: getattr(self.answers, part.name) for part in dataclasses.fields(self.answers)}
        answers["answers"] = {name: [getattr(answer, name) for answer in self.answers.answers] for name in ANSWER}
        return {part.name: getattr(self, part.name) for part in dataclasses.fields(self)} | {"answers": answers}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Evaluated":
        """What strict JSON made of one; null scores are NaN again."""
        parts = dict(record["answers"])
        columns = parts.pop("answers")
        columns["score"] = [math.nan if score is None else score for score in columns["score"]]
        answers = [Answer(*values) for values in zip(*(columns[name] for name in ANSWER), strict=True)]
        return cls(Answers(answers=answers, **parts), record["flops"], record["reduction"], record["tokens_per_layer"])


@dataclass(frozen=True)
class Pair:
    """What a cell is judged by: the dense model's answers and its own; for a dense cell twice the same.

    Attributes:
        full_n: of a run that may stop early, the questions that there are.
    """

    dense: Evaluated
    pruned: Evaluated
    full_n: int | None = None


class Evaluation:
    """Asks models in this process.

    Args:
        shared: the folder through which the processes of the run share work.
        results: the results folder; None keeps nothing beyond the run.
        rerun: ask anew what the results folder has, once in this run.
    """

    def __init__(
        self, settings: CellSettings, shelf: Shelf, shared: RunFolder, results: Store | None = None, rerun: bool = False
    ) -> None:
        self.settings = settings
        self.shelf = shelf
        self.shared = shared
        self.results = results
        self.lasting = shared if results is None else results.shared
        self.rerun = rerun

    def task(self, suite: str) -> Any:
        """A suite, with its data read."""
        return build_task(suite, self.settings.data, self.settings.limit)

    def tally(self, resolved: Resolved) -> Tally:
        """What counts the cost of a cell's answers."""
        return Tally(self.shelf.model(resolved.cell.model).config)

    def evaluate(
        self, resolved: Resolved, journal: Journal | None = None, task: Any = None, tally: Tally | None = None
    ) -> Evaluated:
        """Answers to the cell's suite, or to the `task` that is a part of it, and what they cost, together with what the
        tally has counted before.
        """
        cell, tally = resolved.cell, tally or self.tally(resolved)
        loaded = self.shelf.model(cell.model)

        def count(batch: "Finished") -> None:
            if batch.cost is not None:
                tally.add(batch.cost)

        with self.shelf.remembering(loaded):
            answers = evaluate_cell(
                loaded,
                None if cell.is_dense else resolved.pruner,
                cell.suite,
                self.settings,
                observer=count,
                journal=journal,
                cache=self.shelf.inputs,
                task=task,
            )
        return Evaluated(answers, tally.flops(), tally.reduction(), tally.tokens_per_layer())

    def once(self, resolved: Resolved, task: Any = None) -> Evaluated:
        """The answers of a cell, or of a part of it, from whichever process, of this run or another, came first: of a dense
        cell those that all others are compared with, of a pruned one a part that a search asked for.
        """
        key = resolved.key if task is None else f"{resolved.key}-{digest_of(list(task.rows), 8)}"
        kind = "dense" if resolved.cell.is_dense else "part"
        name = f"{kind}-{readable(resolved.cell.model)}-{resolved.cell.suite}-{key}"

        def compute() -> dict[str, Any]:
            journal = None if self.results is None else self.results.journal(f"{kind}-{key}")
            if journal is not None and self.rerun:
                journal.remove()
            return self.evaluate(resolved, journal, task).to_json()

        if self.rerun:  # once in this run, and in place of what earlier runs left
            record = self.shared.once(f"again-{name}", lambda: self.lasting.once(name, compute, again=True))
        else:
            record = self.lasting.once(name, compute)
        if self.results is not None:  # also what a run left that was killed once its answers were written
            self.results.journal(f"{kind}-{key}").remove()
        return Evaluated.from_json(record)

    def pair(self, resolved: Resolved, journal: Journal | None = None) -> Pair:
        """A cell's answers and those that they are compared with, to all questions."""
        if resolved.cell.is_dense:
            answered = self.once(resolved)
            return Pair(answered, answered)
        # Pruned first: if another process is still at the dense answers, this one has something to do meanwhile.
        pruned = self.evaluate(resolved, journal)
        return Pair(self.once(resolved.dense), pruned)
