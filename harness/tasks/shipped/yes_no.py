"""Suites of yes and no: POPE and MME; and as papers score them beside that, POPE's F1 of each split and MME's total."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.answers import F1, MEAN, PAIRS
from harness.tasks.labels import filled, in_turn, pairs, texts, yes_no
from harness.tasks.spec import Metric, Part, SuiteSpec

TOTAL = "mme_total_score"


def mme_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lmms-eval's result of a question, perception and cognition under one name."""
    from lmms_eval.tasks.mme.utils import mme_process_results

    (value,) = mme_process_results(doc, results).values()
    return {TOTAL: value}


def mme_total(values: Sequence[Any]) -> float:
    """The sum of perception and cognition: of all categories, 2800 at most."""
    from lmms_eval.tasks.mme.utils import mme_aggregate_results

    return mme_aggregate_results(values)


_POPE_COLUMNS = ("question", "answer", "question_id", "image")
_POPE = SuiteSpec.alike(
    "pope",
    Metric("pope_accuracy", MEAN),
    "POPE",
    "lmms-lab-encoder/POPE",
    Part(None, "test", _POPE_COLUMNS),
    cluster="image_source",
    stratum="category",
    labels=in_turn(texts("question"), yes_no),
    chance=50.0,
)
_POPE_F1 = replace(_POPE, name="pope-f1", metric=Metric("pope_f1_score", F1), title="POPE F1", chance=0.0, data="pope")
_MME = SuiteSpec.alike(
    "mme",
    Metric("mme_perception_score", PAIRS, full=200, per_group=True),
    "MME",
    "lmms-lab-encoder/MME",
    Part(None, "test", ("question_id", "category", "question", "answer", "image")),
    cluster="question_id",
    stratum="category",
    paired=True,
    labels=in_turn(texts("question"), filled("category", "question_id"), pairs),
    chance=(50.0 + 25.0) / 2,  # of single questions, and of both about an image
)


def _split(name: str, task: str) -> SuiteSpec:
    """POPE's F1 on one kind of questions."""
    return replace(
        _POPE_F1, name=f"pope-f1-{name}", task=task, title=f"POPE F1, {name}", questions=Part("Full", name, _POPE_COLUMNS)
    )


SUITES = (
    _POPE,
    _POPE_F1,
    _split("adversarial", "pope_adv"),
    _split("popular", "pope_pop"),
    _split("random", "pope_random"),
    _MME,
    replace(
        _MME,
        name="mme-total",
        metric=Metric(TOTAL, PAIRS, full=200, per_group=True),
        title="MME, total",
        options={
            "process_results": mme_results,
            "metric_list": [{"metric": TOTAL, "aggregation": mme_total, "higher_is_better": True}],
        },
    ),
)
