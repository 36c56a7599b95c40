"""`tried`: a task of which nothing is known but what lmms-eval says, tried on its first questions before any work.

What its scoring does is seen by having it score the task's own targets, and an answer that nobody can read.
"""

import dataclasses
import inspect
import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitprune.errors import FitPruneError
from harness.answering.judge import Judge, asked
from harness.answering.scoring import SAME, UNSCORED, aggregation_of, scoring_arguments
from harness.tasks.build import is_submission, refusing
from harness.tasks.isolation import quiet
from harness.tasks.spec import Metric, SuiteSpec

if TYPE_CHECKING:
    from lmms_eval.api.task import ConfigurableTask

ROWS = 16  # questions that are tried: of so few, one that is right makes more than one point of 100
JUDGED = 4  # of these, where a judge is asked about each
_UNREADABLE = "kqzx"
_GUESSES = ("A", "B", "C", "D", "yes", "no")  # where a target is not in the words of an answer
_OF_TARGETS = "lmms-eval cannot score an answer that says the target"


def tried(spec: SuiteSpec, task: "ConfigurableTask", judge: Judge | None = None) -> SuiteSpec:
    """The suite with its metric known: by name, and by what a model that is right throughout gets.

    Raises FitPruneError, in one line, for a task that cannot be asked or scored here: without pictures, with several metrics of
    which none was named, with scoring that needs a judge, stops, or gives no number from 0 to 1 or to 100 that is an average.
    """
    if spec.metric.full is not None:
        return spec
    name = _metric_name(spec, task)
    metric = dataclasses.replace(spec.metric, name=name)
    if task.higher_is_better().get(name) is False:
        raise FitPruneError(
            f"suite '{spec.name}': lower is better in {name}, so that a drop would be a gain; name another metric"
        )
    part = task.narrowed(range(min(len(task.rows), ROWS)))
    with quiet(), tempfile.TemporaryDirectory() as folder:
        part.args = scoring_arguments(folder)
        _check_question(spec, part)
        full, judged = _full(spec, task, part, metric, judge)
    return dataclasses.replace(spec, metric=dataclasses.replace(metric, full=full), judge=judged)


def _metric_name(spec: SuiteSpec, task: "ConfigurableTask") -> str:
    names = [name for name in task.aggregation() if not is_submission(name)]
    if spec.metric.name in task.aggregation():
        return spec.metric.name
    listed = ", ".join(names)
    if spec.metric.name:
        raise FitPruneError(f"suite '{spec.name}': its task has no metric {spec.metric.name}; it has {listed}")
    if len(names) != 1:
        raise FitPruneError(f"suite '{spec.name}' has {len(names)} metrics; name one, as {spec.task}:METRIC: {listed}")
    return names[0]


def _check_question(spec: SuiteSpec, part: "ConfigurableTask") -> None:
    """The first question has a text and pictures."""
    from PIL.Image import Image

    with refusing(spec.name, "lmms-eval cannot put its first question"):
        doc = part.eval_docs[0]
        prompt, pictures = part.doc_to_text(doc), part.doc_to_visual(doc)
    if not pictures:
        raise FitPruneError(f"suite '{spec.name}': its first question has no picture; without visual tokens nothing is pruned")
    others = [item for item in pictures if not isinstance(item, Image)]
    if others:
        kind = Path(others[0]).suffix if isinstance(others[0], str) else type(others[0]).__name__
        raise FitPruneError(f"suite '{spec.name}': its first question is about video or sound ({kind}), not about pictures")
    if not isinstance(prompt, str):
        raise FitPruneError(f"suite '{spec.name}': its first question is no text, but {type(prompt).__name__}")


def _full(
    spec: SuiteSpec, task: "ConfigurableTask", part: "ConfigurableTask", metric: Metric, judge: Judge | None
) -> tuple[float, bool]:
    """What a model that is right throughout gets, 1 or 100; and whether a judge scores."""
    judged = False
    try:
        with asked(None, spec.name):
            found = list(_aggregates(spec, _scored(spec, task, part, metric), metric, _GUESSES))
    except FitPruneError:
        if judge is None:
            raise
        with asked(judge, spec.name):
            found, judged = list(_aggregates(spec, part.narrowed(range(min(JUDGED, len(part.rows)))), metric, ())), True
    top = max((value for value in found if not math.isnan(value)), default=math.nan)
    said = f"suite '{spec.name}': {metric.name} of its task"
    if not top > 0:
        raise FitPruneError(f"{said} is {top:g} for every answer that was tried, so that nothing says what it goes up to")
    if top > 100:
        raise FitPruneError(f"{said} goes up to {top:g}, which is neither 0-1 nor 0-100")
    return (1.0 if top <= 1 + SAME else 100.0), judged


def _scored(spec: SuiteSpec, task: "ConfigurableTask", part: "ConfigurableTask", metric: Metric) -> "ConfigurableTask":
    """The first questions, or where the metric scores none of them, as one of a category may, the first that it scores."""

    def has_value(doc: Any) -> bool:
        return _value(part, metric, doc, _target(part.doc_to_target(doc))) is not UNSCORED

    with refusing(spec.name, _OF_TARGETS):
        if any(map(has_value, part.eval_docs_no_media)):
            return part
        scored = (row for row, doc in enumerate(task.eval_docs_no_media) if has_value(doc))
        rows = list(itertools.islice(scored, ROWS))
    if not rows:
        raise FitPruneError(f"suite '{spec.name}': {metric.name} of its task scores none of the {len(task.rows)} questions")
    chosen = task.narrowed(rows)
    chosen.args = part.args
    return chosen


def _aggregates(spec: SuiteSpec, part: "ConfigurableTask", metric: Metric, guesses: Sequence[str]) -> Iterator[float]:
    """The aggregates of several models: one that says the targets, one that cannot be read, and guessing ones."""
    docs = list(part.eval_docs_no_media)
    aggregate = aggregation_of(part, metric)

    def of(answers: Sequence[str]) -> float:
        values = [_value(part, metric, doc, answer) for doc, answer in zip(docs, answers, strict=True)]
        values = [value for value in values if value is not UNSCORED]
        if not values:
            return math.nan
        whole: Any = aggregate(values)
        if not isinstance(whole, int | float | np.number):
            raise FitPruneError(
                f"suite '{spec.name}': {metric.name} of its task is no number, but {str(whole)[:40]!r}; name another metric"
            )
        if abs(aggregate(values) - whole) > SAME:
            raise FitPruneError(f"suite '{spec.name}': {metric.name} of its task is another number when it is made again")
        halves = [aggregate(half) for half in (values[::2], values[1::2]) if half]
        if whole > 0 and len(values) > 1 and abs(sum(halves) - whole) <= SAME * whole:
            raise FitPruneError(
                f"suite '{spec.name}': {metric.name} of its task adds up over questions; it is no average of them"
            )
        return float(whole)

    with refusing(spec.name, _OF_TARGETS):
        targets = [part.doc_to_target(doc) for doc in docs]
        yield of([_target(target) for target in targets])
        if any(isinstance(target, list | tuple) for target in targets):  # a box, whose four numbers are one answer
            yield of([str(target) for target in targets])
    with refusing(spec.name, "lmms-eval cannot score an answer that it cannot read"):
        yield of([_UNREADABLE] * len(docs))
    for guess in guesses:
        with refusing(spec.name, f"lmms-eval cannot score the answer {guess}"):
            yield of([guess] * len(docs))


def _value(part: "ConfigurableTask", metric: Metric, doc: Any, answer: str) -> Any:
    # lmms-eval waits and asks again where scoring fails; here that is to be known at once.
    return inspect.unwrap(type(part).process_results)(part, doc, [answer]).get(metric.name, UNSCORED)


def _target(target: Any) -> str:
    return str(target[0] if isinstance(target, list | tuple) and target else target)
