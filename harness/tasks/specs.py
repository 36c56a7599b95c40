"""The suites: which lmms-eval task each is, which data it reads, and what makes the data unfit for it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fitprune.errors import unknown_name


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
        problem: what is wrong with a table of the columns (without images), or None: data that lmms-eval would score 0
            or stop at half-way.
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
    problem: Callable[[pa.Table], str | None] = lambda table: None


def _yes_no(table: pa.Table) -> str | None:
    others = {
        answer for answer in table["answer"].to_pylist() if str(answer).lower().strip().replace(".", "") not in ("yes", "no")
    }
    return f"answer must be yes or no, not {sorted(map(str, others))[0]!r}" if others else None


def _pairs(table: pa.Table) -> str | None:
    counts = Counter(zip(table["category"].to_pylist(), table["question_id"].to_pylist(), strict=True))
    odd = [key for key, count in counts.items() if count != 2]
    if odd:
        return f"each category and question_id must name a pair of questions, but {odd[0]} has {counts[odd[0]]}"
    return _yes_no(table)


def _soft_answers(table: pa.Table) -> str | None:
    kind = table.schema.field("answers").type
    if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)):
        return f"answers must be lists of {{answer, answer_id}}, not {kind}"
    absent = {"answer", "answer_id"} - {field.name for field in kind.value_type}
    if absent:
        return f"answers lack {', '.join(sorted(absent))}"
    for answers in table["answers"].to_pylist():
        if not answers:
            return "a question has no answers"
        if len({answer["answer_id"] for answer in answers}) < len(answers):
            return "the answer_id of a question's answers must differ; lmms-eval would score every answer 0"
    return None


def _plain_answers(table: pa.Table) -> str | None:
    return None if all(table["answers"].to_pylist()) else "a question has no answers"


def _choices(table: pa.Table) -> str | None:
    for choices, answer in zip(table["choices"].to_pylist(), table["answer"].to_pylist(), strict=True):
        if answer is None or not 0 <= answer < len(choices or ()):
            return f"answer {answer} is not the index of one of {len(choices or ())} choices"
    return None


def dangling_images(questions: pa.Table, images: pa.Table) -> str | None:
    """What is wrong when questions name images that the image table lacks."""
    absent = pc.filter(questions["imageId"], pc.invert(pc.is_in(questions["imageId"], value_set=images["id"].combine_chunks())))
    return f"{len(absent)} questions name an imageId without an image, e.g. {absent[0].as_py()}" if len(absent) else None


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
            problem=_soft_answers,
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
            problem=_plain_answers,
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
            problem=_yes_no,
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
            problem=_pairs,
        ),
        SuiteSpec(
            "scienceqa",
            "scienceqa_img",
            "scienceqa",
            "exact_match",
            "ScienceQA",
            "lmms-lab-encoder/ScienceQA",
            Part("ScienceQA-IMG", "test", ("image", "question", "choices", "answer", "hint")),
            problem=_choices,
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
