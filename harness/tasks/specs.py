"""The suites: which lmms-eval task each is, which data it reads, and what makes the data unfit for it."""

from dataclasses import dataclass

from fitprune.errors import unknown_name
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
class SuiteSpec:
    """A benchmark, as lmms-eval's task `task` in its folder `tasks/<folder>` defines it.

    Attributes:
        metric: the task's metric that is reported; points of 0-100 are made of it.
        cluster: column that names a question's image; images are compared by content where it is absent.
        stratum: column whose values a `--limit` keeps in proportion.
        paired: questions with the same cluster are scored together, so a `--limit` never parts them.
        labels: checks a table of the columns (without images) and mends it where that is certain; refuses what lmms-eval would
            score 0 or stop at half-way.
    """

    name: str
    task: str
    folder: str
    metric: str
    title: str
    hub: str
    questions: Part
    images: Part | None = None
    cluster: str | None = None
    stratum: str | None = None
    paired: bool = False
    labels: Labels = _QUESTIONS


SUITES: dict[str, SuiteSpec] = {
    spec.name: spec
    for spec in (
        SuiteSpec(
            "gqa",
            "gqa",
            "gqa",
            "exact_match",
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
            "exact_match",
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
            "exact_match",
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
            "pope_accuracy",
            "POPE",
            "lmms-lab-encoder/POPE",
            Part(None, "test", ("question", "answer", "question_id", "image")),
            cluster="image_source",
            stratum="category",
            labels=in_turn(texts("question"), yes_no),
        ),
        SuiteSpec(
            "mme",
            "mme",
            "mme",
            "mme_perception_score",
            "MME",
            "lmms-lab-encoder/MME",
            Part(None, "test", ("question_id", "category", "question", "answer", "image")),
            cluster="question_id",
            stratum="category",
            paired=True,
            labels=in_turn(texts("question"), filled("category", "question_id"), pairs),
        ),
        SuiteSpec(
            "scienceqa",
            "scienceqa_img",
            "scienceqa",
            "exact_match",
            "ScienceQA",
            "lmms-lab-encoder/ScienceQA",
            Part("ScienceQA-IMG", "test", ("image", "question", "choices", "answer", "hint")),
            labels=in_turn(texts("question"), choices),
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
