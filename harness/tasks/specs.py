"""The suites: which lmms-eval task each is, which data it reads, and what makes the data unfit for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fitprune.errors import unknown_name
from harness.answers import MEAN, PAIRS
from harness.tasks.labels import (
    Labels,
    choices,
    distinct,
    filled,
    image_ids,
    in_turn,
    pairs,
    references,
    texts,
    told_apart_references,
    yes_no,
)

_QUESTIONS = texts("question")


@dataclass(frozen=True)
class Part:
    """One split of a data set: configuration (None: the default), split, and the columns that the task's code reads."""

    config: str | None
    split: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """A task's metric, and how it becomes points of 0-100: 100 x lmms-eval's aggregate / `full`.

    Attributes:
        name: lmms-eval's, in `metric_list`.
        statistic: how samples' scores make the aggregate, and so its intervals (`harness.answers`); empty: found in each run,
            a mean where it is proven to be one, else resampled. A claimed mean is proven in each run as well.
        full: the aggregate of a model that is right throughout: 1 of shares, 100 of points.
        per_group: a `full` for each value of the suite's stratum that has a score (MME's sums over categories).
        score: what a sample has under `name` -> share of 0-1, None for no score. By default a number, or a dict's `score`.
        aggregate: in place of lmms-eval's own aggregation: values -> aggregate. For one that is no function of its samples.
    """

    name: str
    statistic: str = ""
    full: float = 1.0
    per_group: bool = False
    score: Callable[[Any], float | None] | None = None
    aggregate: Callable[[Sequence[Any]], float] | None = None


@dataclass(frozen=True)
class SuiteSpec:
    """A benchmark, as lmms-eval's task `task` in `folder` defines it.

    Attributes:
        folder: below `lmms_eval/tasks`, or anywhere.
        metric: the task's metric that is reported.
        questions: None for a task of which nothing but lmms-eval's configuration is known.
        cluster: column that names a question's image; images are compared by content where it is absent.
        stratum: column whose values a `--limit` keeps in proportion.
        paired: questions with the same cluster are scored together, so a `--limit` never parts them.
        labels: checks a table of the columns (without images) and mends it where that is certain; refuses what lmms-eval would
            score 0 or stop at half-way.
        options: what of lmms-eval's configuration of the task is otherwise, top-level keys (a variant's prompts).
        chance: points that guessing gives; a dense score below is a fault.
        everyday: whether `pytest suites/` runs it unasked.
    """

    name: str
    task: str
    folder: str | Path
    metric: Metric
    title: str
    hub: str
    questions: Part | None = None
    images: Part | None = None
    cluster: str | None = None
    stratum: str | None = None
    paired: bool = False
    labels: Labels = _QUESTIONS
    options: Mapping[str, Any] = field(default_factory=dict)
    chance: float = 0.0
    everyday: bool = True


_EXACT = Metric("exact_match", MEAN)

SUITES: dict[str, SuiteSpec] = {
    spec.name: spec
    for spec in (
        SuiteSpec(
            "gqa",
            "gqa",
            "gqa",
            _EXACT,
            "GQA",
            "lmms-lab-encoder/GQA",
            Part("testdev_balanced_instructions", "testdev", ("imageId", "question", "answer")),
            images=Part("testdev_balanced_images", "testdev", ("id", "image")),
            cluster="imageId",
            labels=in_turn(texts("question", "answer"), image_ids),
        ),
        SuiteSpec(
            "vqav2",
            "vqav2_val",
            "vqav2",
            _EXACT,
            "VQAv2",
            "lmms-lab-encoder/VQAv2",
            Part(None, "validation", ("question", "question_id", "image", "answers")),
            cluster="image_id",
            labels=in_turn(texts("question"), distinct("question_id"), told_apart_references),
        ),
        SuiteSpec(
            "textvqa",
            "textvqa_val",
            "textvqa",
            _EXACT,
            "TextVQA",
            "lmms-lab-encoder/textvqa",
            Part(None, "validation", ("image", "question", "question_id", "answers")),
            cluster="image_id",
            labels=in_turn(texts("question"), distinct("question_id"), references),
        ),
        SuiteSpec(
            "pope",
            "pope",
            "pope",
            Metric("pope_accuracy", MEAN),
            "POPE",
            "lmms-lab-encoder/POPE",
            Part(None, "test", ("question", "answer", "question_id", "image")),
            cluster="image_source",
            stratum="category",
            labels=in_turn(texts("question"), yes_no),
            chance=50.0,
        ),
        SuiteSpec(
            "mme",
            "mme",
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
        ),
        SuiteSpec(
            "scienceqa",
            "scienceqa_img",
            "scienceqa",
            _EXACT,
            "ScienceQA",
            "lmms-lab-encoder/ScienceQA",
            Part("ScienceQA-IMG", "test", ("image", "question", "choices", "answer", "hint")),
            labels=in_turn(texts("question"), choices),
            chance=100 / 5,  # of the longest list
        ),
    )
}


def find_suite(name: str) -> SuiteSpec:
    """The suite of that name, or of that lmms-eval task. Raises FitPruneError with the nearest names."""
    if name in SUITES:
        return SUITES[name]
    for spec in SUITES.values():
        if spec.task == name:
            return spec
    raise unknown_name("suite", name, SUITES)
