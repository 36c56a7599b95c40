"""What a result says of its answers, made of the answers: scores, drop, intervals, verdict, and what is odd about them.

A result on disk holds these too, for whoever reads the file. The project's own readers make them anew, so that a change of the
statistics changes every table and verdict and asks no model again.
"""

import dataclasses
import math

import numpy as np

from fitprune.errors import FitPruneError
from harness.answers import RESAMPLED, Answers
from harness.results.result import Result
from harness.results.store import Store, StoredResults
from harness.statistics import GATES, Drop, Verdict, image_drops, no_drop, paired_drop, questions_needed, score_interval
from harness.statistics.betting import BettingBound
from harness.statistics.metrics import taking_part

UNSCORED = 0.01  # share of a suite's questions from which on missing scores are noted of the dense model too
SAME = 1e-6  # points


def computed(result: Result, own: Answers, dense: Answers) -> Result:
    """The result with everything that its answers, and the dense model's, say.

    Scores are lmms-eval's own sums where they are what the questions' scores give. Raises FitPruneError, in one line, where
    the two are no pair, or a score is no share.
    """
    drop, score, before = _drop(result, own, dense), score_interval(own), score_interval(dense, ends=False)
    low, high = drop.low, drop.high
    if result.sequential:
        bound = BettingBound()
        bound.add(image_drops(dense, own))
        low, high = (100 * end for end in bound.interval())
    notes = dict.fromkeys([*filter(None, result.note.split("; ")), *oddities(own, drop)])
    made = dataclasses.replace(
        result,
        score=_close(result.score, score.value),
        dense_score=_close(result.dense_score, before.value),
        drop=drop.drop,
        drop_ci95=(low, high),
        score_ci95=(score.low, score.high),
        n=drop.n,
        clusters=drop.clusters,
        note="; ".join(notes),
    )
    return with_verdict(made, own, dense, made.gate, made.max_drop) if made.gate else made


def with_verdict(result: Result, own: Answers, dense: Answers, gate: str, max_drop: float | None) -> Result:
    """The result with the gate's verdict; with neither where nothing says what it may lose. What was compared with a faulty
    dense score fails, and without a gate the dense cell itself.
    """
    if max_drop is None:
        verdict = str(Verdict.FAIL) if result.dense_fault and result.cell.is_dense else ""
        return dataclasses.replace(result, gate="", max_drop=None, verdict=verdict, needed=None)
    if gate == "sequential" and not result.sequential:
        gate = "significant"  # all questions were asked; the result's note says why
    drop = Drop(result.drop, *result.drop_ci95, result.n, result.clusters)
    verdict = Verdict.FAIL if result.dense_fault else GATES[gate](drop, max_drop)
    needed = None
    if verdict == Verdict.UNDECIDED and math.isfinite(drop.low):
        # What no interval says: whether anything differed at all.
        needed = questions_needed(drop if result.sequential else _drop(result, own, dense), max_drop)
    return dataclasses.replace(result, gate=gate, max_drop=max_drop, verdict=str(verdict), needed=needed)


def oddities(own: Answers, drop: Drop) -> list[str]:
    """What a reader must know of answers that no model in its senses gives, and of questions without a score."""
    notes, suite = [], own.suite
    texts = {answer.answer.strip() for answer in own.answers}
    if texts == {""}:
        notes.append(f"{suite}: all {len(own.answers)} answers are empty")
    elif len(texts) == 1 and len({answer.target for answer in own.answers}) > 1:
        notes.append(f"{suite}: all {len(own.answers)} answers are {next(iter(texts))!r}, whatever the question")
    if drop.unscored:
        notes.append(f"{suite}: {drop.unscored} questions have no score and take no part in the drop")
    scores = np.array([answer.score for answer in own.answers])
    counted = scores[taking_part(own.answers, scores)]
    missing = 0 if own.statistic == RESAMPLED else int(np.isnan(counted).sum())
    if missing > UNSCORED * len(counted) and not drop.unscored:
        notes.append(f"{suite}: {missing} of {len(counted)} questions have no score")
    return notes


def read_computed(store: Store) -> StoredResults:
    """Every result of a folder, made anew of its answers; one whose answers cannot be used is named, and is as in its file."""
    results, notes = store.read_all()
    made = []
    for result in results:
        try:
            made.append(computed(result, *store.read_both(result)))
        except FitPruneError as error:
            made.append(result)
            notes.append(f"the figures of {result.name} are those of its file: {error}")
    return StoredResults(made, notes)


def _drop(result: Result, own: Answers, dense: Answers) -> Drop:
    return no_drop(own) if result.cell.is_dense else paired_drop(dense, own)


def _close(stored: float, made: float) -> float:
    return stored if not math.isfinite(made) or abs(stored - made) <= SAME else made
