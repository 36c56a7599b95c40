"""`Asking`: the questions of a search, asked of models: the dense one's once, candidates' in stretches that are kept."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fitprune.errors import FitPruneError
from harness.answers import Answer, Answers
from harness.bench.bench import Bench
from harness.bench.resolved import Resolved
from harness.gate.floor import guessing
from harness.statistics import Drop, paired_drop, score_interval
from harness.statistics.metrics import scores_of
from harness.tasks.specs import find_suite
from harness.tuning.asked import require_mean
from harness.tuning.search import Candidate, Suite

HELD_OUT = 5  # of the images, one in so many is kept from the search where it is to be confirmed


@dataclass(frozen=True)
class Questions:
    """A suite's questions, and the dense answers to all of them.

    Attributes:
        places: those that the search may ask; held: those that it never looks at.
    """

    task: Any
    dense: Answers
    places: np.ndarray
    held: np.ndarray


class Asking:
    """Asks in this process. What was asked once is found in the results folder, so that a killed search goes on.

    Args:
        cells: of each candidate, by suite.
        confirm: whether a part of the images is kept from the search.
    """

    def __init__(self, bench: Bench, cells: dict[Candidate, dict[str, Resolved]], confirm: bool = False) -> None:
        self.bench = bench
        self.cells = cells
        self.confirm = confirm
        self._questions: dict[str, Questions] = {}

    def suite(self, name: str, margin: float) -> Suite:
        """A suite for the search, its dense answers asked. Raises FitPruneError for one whose score is no mean,
        and for a dense score that has nothing to lose.

        margin: in points.
        """
        resolved = next(iter(self.cells.values()))[name].dense
        require_mean(name, resolved.identity["metric"], resolved.identity["statistic"])
        dense = self.bench.evaluation.once(resolved).answers
        task = self.bench.evaluation.task(name)
        said = f"the dense {resolved.cell.model} scores {dense.score:.1f} on {name}"
        if fault := guessing(said, dense.score, score_interval(dense).high, find_suite(name).chance):
            raise FitPruneError(fault)
        scores = scores_of(dense)
        held = np.zeros(len(scores), dtype=bool)
        if self.confirm:
            held = np.array([_held_out(answer.image, self.bench.settings.seed) for answer in dense.answers])
        places = np.flatnonzero(np.isfinite(scores) & ~held)
        if not len(places) or (self.confirm and not held.any()):
            raise FitPruneError(f"suite '{name}' has too few questions to search and to confirm: {len(scores)}")
        self._questions[name] = Questions(task, dense, places, np.flatnonzero(held))
        answers = [dense.answers[place] for place in places]
        return Suite(name, scores[places], features_of(answers), margin / 100)

    def scores(self, candidate: Candidate, suite: str, places: np.ndarray) -> np.ndarray:
        """A candidate's scores (n,) on questions of the search; what cannot be scored counts as wrong."""
        known = self._questions[suite]
        rows = known.places[places]
        by_id = {answer.doc_id: answer.score for answer in self._answers(candidate, suite, rows).answers}
        found = np.array([by_id[known.dense.answers[row].doc_id] for row in rows], dtype=float)
        return np.nan_to_num(found, nan=0.0)

    def confirmed(self, candidate: Candidate, suite: str) -> Drop:
        """The drop on the questions that the search never looked at, with its interval over images."""
        known = self._questions[suite]
        after = self._answers(candidate, suite, known.held)
        asked = {answer.doc_id for answer in after.answers}
        before = known.dense.narrowed(asked)
        return paired_drop(before, after)

    def _answers(self, candidate: Candidate, suite: str, rows: np.ndarray) -> Answers:
        part = self._questions[suite].task.narrowed(sorted(rows.tolist()))
        return self.bench.evaluation.once(self.cells[candidate][suite], part).answers


def features_of(answers: Sequence[Answer]) -> np.ndarray:
    """(N, 3): how uncertain the first token was, by its margin and by its entropy, and how long the answer is; as ranks from
    -1.7 to 1.7, and 0 where nobody wrote it down.
    """
    columns = (
        [None if answer.margin is None else -answer.margin for answer in answers],
        [answer.entropy for answer in answers],
        [answer.new_tokens for answer in answers],
    )
    return np.stack([_ranks(column) for column in columns], 1)


def _ranks(values: Sequence[float | None]) -> np.ndarray:
    known = np.array([np.nan if value is None else value for value in values], dtype=float)
    if not np.isfinite(known).all():
        return np.zeros(len(known))
    _, inverse, counts = np.unique(known, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.sqrt(12) * (middle[inverse] / len(known) - 0.5)


def _held_out(image: str, seed: int) -> bool:
    return hashlib.sha256(repr((seed, image)).encode()).digest()[0] % HELD_OUT == 0
