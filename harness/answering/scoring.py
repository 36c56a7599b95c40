"""`scored`: from what lmms-eval made of the answers to points, scores of questions, and how the one is made of the other."""

import argparse
import inspect
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

from fitprune.errors import FitPruneError
from harness.answers import MEAN, RESAMPLED, Answer
from harness.statistics import half_samples
from harness.tasks.spec import Metric, SuiteSpec

if TYPE_CHECKING:
    from lmms_eval.api.task import ConfigurableTask

SAME = 1e-9  # of a share
UNSCORED = object()  # the value of a question that a metric does not score


@dataclass(frozen=True)
class Scored:
    """What a suite's answers score.

    Attributes:
        points: lmms-eval's aggregate, as points of 0-100.
        scores: per sample, a share; NaN where it has none.
        replicates: where the metric says nothing of its statistic, the points of each of `half_samples`.
    """

    points: float
    scores: list[float]
    statistic: str
    replicates: list[float] = field(default_factory=list)


def scored(
    spec: SuiteSpec, task: "ConfigurableTask", values: Sequence[Any], answers: Sequence[Answer], aggregates: Mapping
) -> Scored:
    """What the samples score, and by which statistic.

    A mean, claimed or found, is one that is proven here: the scores' mean, as a share, is lmms-eval's aggregate to `SAME`;
    found, on every half of the images as well.

    Args:
        values: what lmms-eval gave each question, by doc_id; UNSCORED where it gave nothing.
        answers: to the same questions.
        aggregates: of lmms-eval, by metric and filter.

    Raises FitPruneError where lmms-eval gives no number, and where a claimed mean is none.
    """
    metric = spec.metric
    there = [place for place, value in enumerate(values) if value is not UNSCORED]
    values = [values[place] for place in there]
    scores = [math.nan] * len(answers)
    for place, value in zip(there, values, strict=True):
        scores[place] = share_of(metric, value)
    known = next((value for name, value in aggregates.items() if name.partition(",")[0] == metric.name), None)
    value = known if metric.aggregate is None else metric.aggregate(values)
    if not isinstance(value, Real) or math.isnan(value):
        raise FitPruneError(f"suite '{spec.name}': lmms-eval gave no {metric.name}, but {value!r}")
    groups = {answers[place].group for place in there if not math.isnan(scores[place])}
    full = (metric.full or 1.0) * (len(groups) if metric.per_group else 1)
    points = 100 * float(value) / full
    if metric.statistic not in ("", RESAMPLED):
        if metric.statistic == MEAN and not _is_mean(scores, points):
            raise FitPruneError(
                f"{spec.name}: the mean of the questions' {metric.name} is {100 * _mean(scores):.6g} points, and lmms-eval's "
                f"aggregate is {points:.6g}: it is no mean of them"
            )
        return Scored(points, scores, metric.statistic)
    parts = half_samples([answers[place].image for place in there])
    aggregate = aggregation_of(task, metric)
    replicates = [100 * _aggregated(aggregate, [values[place] for place in part]) / full for part in parts]
    asked = [scores[place] for place in there]
    proven = _is_mean(asked, points) and all(
        _is_mean([asked[place] for place in part], made) for part, made in zip(parts, replicates, strict=True)
    )
    return Scored(points, scores, MEAN if proven else RESAMPLED, replicates)


def share_of(metric: Metric, value: Any) -> float:
    """A sample's score of 0-1; NaN where its value is none."""
    if metric.score is not None:
        value = metric.score(value)
    elif isinstance(value, Mapping):
        value = value.get("score")
    found = float(value) if isinstance(value, Real) else math.nan
    return found if metric.statistic or 0 <= found <= 1 else math.nan


def aggregation_of(task: "ConfigurableTask", metric: Metric) -> Callable[[Sequence[Any]], Any]:
    """The metric's aggregation, as lmms-eval calls it: values -> aggregate."""
    if metric.aggregate is not None:
        return metric.aggregate
    own = task.aggregation()[metric.name]
    if "args" not in inspect.signature(own).parameters:
        return own
    return lambda values: own(values, args=task.args)


def scoring_arguments(folder: str) -> argparse.Namespace:
    """What lmms-eval's command line would have: some tasks write files where it says, here into `folder`."""
    return argparse.Namespace(output_path=folder, process_with_media=False)


def _mean(scores: Sequence[float]) -> float:
    there = [score for score in scores if not math.isnan(score)]
    return statistics.fmean(there) if there else math.nan


def _is_mean(scores: Sequence[float], points: float) -> bool:
    return abs(_mean(scores) - points / 100) <= SAME


def _aggregated(aggregate: Callable[[Sequence[Any]], Any], values: Sequence[Any]) -> float:
    """The aggregate of some samples; NaN where there is none, such as of a half without a category that it divides by."""
    try:
        value = aggregate(values)
    except Exception:  # whatever a task's code raises
        return math.nan
    return float(value) if isinstance(value, Real) else math.nan
