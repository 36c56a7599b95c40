"""The floor: a dense score that is too low to compare anything with. A model that is broken loses nothing by pruning."""

import csv
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from fitprune.errors import FitPruneError
from harness.answers import Answers
from harness.cells import DENSE, Cell
from harness.published.tables import dense_scores
from harness.results.result import Result
from harness.results.store import Store
from harness.statistics import score_interval

BELOW = 10.0  # points under a known score of the same model, from which on something is broken


@dataclass(frozen=True)
class Known:
    """A score of the dense model that is known.

    Attributes:
        same: whether it is of the very questions that were asked; else the sample may be unlucky.
    """

    points: float
    source: str
    same: bool


def dense_fault(result: Result, dense: Answers, store: Store, chance: float = 0.0) -> str:
    """What is wrong with the dense score that a cell is compared with, in one line; empty if nothing is.

    It is nothing at all, below chance with 95 % confidence, or more than `BELOW` points under what a card, a paper or an
    earlier run of this results folder has: with 95 % confidence where other questions were asked there. chance: points that
    guessing gives on the suite.
    """
    scored, said = result.dense_score, f"the dense {result.model} scores {result.dense_score:.1f} on {result.suite}"
    high = score_interval(dense).high
    if fault := guessing(said, scored, high, chance):
        return fault
    for known in (*_registered(result), *_earlier(result, store)):
        if scored < known.points - BELOW and (known.same or high < known.points - BELOW):
            return (
                f"{said}, more than {BELOW:g} points under the {known.points:.1f} of {known.source}; "
                "no drop is judged against such a score"
            )
    return ""


def guessing(said: str, scored: float, high: float, chance: float) -> str:
    """What is wrong with a dense score by itself: it is nothing, or its interval ends below chance; empty if nothing is."""
    if not scored > 0:
        return f"{said}: it has nothing to lose, and no drop says anything; the model, its prompt or the data do not fit"
    if high < chance:
        return f"{said}, below the {chance:g} of guessing with 95 % confidence; the model, its prompt or the data do not fit"
    return ""


def _registered(result: Result) -> Iterator[Known]:
    """What the embedded models were measured at on mini data, and what is printed of the others on the public data."""
    whole = result.limit is None and not result.sequential
    if result.data == "hub":
        for suite, points, source in dense_scores(result.model):
            if suite == result.suite:
                yield Known(points, source, whole)
    for line in _lines():
        if (line["model"], line["data"], line["suite"]) == (result.model, result.data, result.suite):
            yield Known(float(line["points"]), line["source"], whole)


def _earlier(result: Result, store: Store) -> Iterator[Known]:
    """What the folder's results of the same cell, or of its dense one, have for the same questions to the same weights."""
    dense = Cell(result.model, DENSE, None, result.suite)
    for cell in dict.fromkeys((dense, result.cell)):
        for name in store.names_of(cell):
            try:
                earlier = store.find(name)
            except FitPruneError:
                continue  # whoever comes to that cell says so
            if _questions(earlier) == _questions(result) and math.isfinite(earlier.dense_score) and not earlier.dense_fault:
                yield Known(earlier.dense_score, f"a run of {earlier.date[:10]}", same=True)


def _questions(result: Result) -> tuple[object, ...]:
    return (
        *(result.model, result.revision, result.weights, result.suite, result.metric),
        *(result.data_digest, result.limit, bool(result.sequential)),
    )


@functools.cache
def _lines() -> list[dict[str, str]]:
    text = resources.files("harness.gate").joinpath("registered_scores.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
