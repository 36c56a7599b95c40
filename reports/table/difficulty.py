"""What pruning costs on the questions that a smaller input image does not answer as well.

VTC-Bench (Liao et al. 2025, arXiv 2510.07143): most questions of a benchmark are answered from a downsampled image too, and say
little of a method that prunes visual tokens. What is left tells methods apart.
"""

import dataclasses
import math
from dataclasses import dataclass

from fitprune.errors import FitPruneError
from harness.answers import MEAN, Answers
from harness.results.store import Store
from harness.results.table import Row, Table
from harness.results.texts import plus_minus
from harness.statistics import paired_drop
from harness.tasks.specs import suite_title
from reports.table.rivals import Edge, mean_edge, not_compared

EASIER = "downsample"
ENOUGH = 0.5  # of a question's full score: from there on it counts as answered


@dataclass(frozen=True)
class Rest:
    """The questions of a suite that a downsampled model does not answer, and what a row loses on them.

    Attributes:
        by: the downsampled model, as its row is called.
        answered: share of the questions that it still answers.
        questions: how many are left.
        drop: points that the row's mean score on these is below the dense model's; None where nothing is left to compare.
    """

    by: str
    answered: float
    questions: int
    drop: Edge | None


@dataclass
class Difficulty:
    """For each row of a table, in its order, suite → what it loses on the rest; and notes for people."""

    table: Table
    rests: list[dict[str, Rest]]
    notes: list[str]

    def average(self, place: int) -> Edge | None:
        """A row's drop on the rest, averaged over all suites that the table's average is of; None if one is missing."""
        rests, suites = self.rests[place], self.table.averaged
        drops = {suite: rests[suite].drop for suite in suites if suite in rests}
        known = {suite: drop for suite, drop in drops.items() if drop is not None}
        return mean_edge(known, self.table.data) if known and len(known) == len(suites) else None

    @property
    def columns(self) -> list[str]:
        """Of the table for people."""
        return ["method", "average", *map(suite_title, self.table.suites)]

    @property
    def lines(self) -> list[list[str]]:
        """Its lines: what each downsampled model answers, then what each row loses on the rest."""
        shares: dict[str, dict[str, Rest]] = {}
        for rests in self.rests:
            for suite, rest in rests.items():
                shares.setdefault(rest.by, {})[suite] = rest
        lines = []
        for by, answered in shares.items():
            texts = [f"{answered[suite].answered:.0%}" if suite in answered else "–" for suite in self.table.suites]
            lines.append([f"{by} still answers", "–", *texts])
        for place, (row, rests) in enumerate(zip(self.table.rows, self.rests, strict=True)):
            if rests:
                texts = [_text(rests[suite]) if suite in rests else "–" for suite in self.table.suites]
                lines.append([row.name, _drop_text(self.average(place)), *texts])
        return lines


def difficulty_of(table: Table, store: Store) -> Difficulty:
    """Of a table's rows, each against the row of `downsample` whose reduction is nearest to its own.

    Raises FitPruneError, in one line, for a table without one.
    """
    # As its authors have it: rows with other position ids are compared with that one too.
    easier = [row for row in table.rows if row.cell.pruner == EASIER and row.results and not row.cell.positions]
    if not easier:
        raise FitPruneError(
            f"{table.model}: what a downsampled model answers is not in the results; "
            f"add it with pytest suites/ --model {table.model} --pruner {EASIER} --reduction R"
        )
    rests: list[dict[str, Rest]] = [{} for _ in table.rows]
    unread: list[str] = []
    for suite in table.suites:
        answered: dict[int, Answers] = {}
        for place, row in enumerate(easier):
            if suite in row.results:
                try:
                    answered[place], _ = store.read_both(row.results[suite])
                except FitPruneError as error:
                    unread.append(str(error))
        for row, found in zip(table.rows, rests, strict=True):
            if row.is_dense or row.cell.pruner == EASIER or suite not in row.results or not answered:
                continue
            nearest = min(answered, key=lambda place: abs(_budget(easier[place]) - _budget(row)))
            try:
                found[suite] = _rest(row, suite, easier[nearest].name, answered[nearest], store)
            except FitPruneError as error:
                unread.append(f"{row.name} on {suite}: {error}")
    notes = [
        f"Answered: with at least half of a question's full score. {EASIER} is taken at the reduction nearest to a row's own. "
        "The drop is that of the questions' mean score on the rest, dense minus pruned, with the half-width of its 95 % "
        "interval, clustered by image; in parentheses how many questions these are."
    ]
    return Difficulty(table, rests, notes + not_compared(unread))


def _budget(row: Row) -> float:
    """What a row was asked to save; of a recipe's, which was not asked, what it saves."""
    return row.reduction if row.cell.reduction is None else row.cell.reduction


def _rest(row: Row, suite: str, by: str, easier: Answers, store: Store) -> Rest:
    result = row.results[suite]
    own, dense = store.read_both(result)
    scored = [answer for answer in easier.answers if not math.isnan(answer.score)]
    left = {answer.doc_id for answer in scored if answer.score < ENOUGH}
    before, after = (_only(answers, left) for answers in (dense, own))
    if len(before.answers) < len(left):
        raise FitPruneError(f"it was asked other questions than {by}")
    drop = paired_drop(before, after) if left else None
    edge = None if drop is None else Edge(drop.drop, drop.low, drop.high, drop.influence)
    return Rest(by, 1 - len(left) / len(scored) if scored else math.nan, len(left), edge)


def _only(answers: Answers, questions: set[int]) -> Answers:
    """Some of the answers, by the mean of their scores, whatever the suite's own metric makes of all of them."""
    chosen = [answer for answer in answers.answers if answer.doc_id in questions]
    return dataclasses.replace(answers, answers=chosen, statistic=MEAN, replicates=[])


def _text(rest: Rest) -> str:
    return f"{_drop_text(rest.drop)} ({rest.questions})"


def _drop_text(drop: Edge | None) -> str:
    return "–" if drop is None else plus_minus(drop.points, (drop.high - drop.low) / 2)
