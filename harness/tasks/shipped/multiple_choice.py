"""Suites whose answer is an option's letter: ScienceQA, MMBench, SEED-Bench, AI2D, MMMU, MMStar, RealWorldQA."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.answers import MEAN
from harness.tasks.labels import choices, distinct, filled, in_turn, texts
from harness.tasks.shipped.columns import letters, lists_as_text, option_numbers
from harness.tasks.spec import Metric, Part, SuiteSpec

if TYPE_CHECKING:
    from datasets import Dataset

LETTERS = "ABCD"
ROTATED = 1_000_000  # MMBench's copies of a question with its options turned have its index plus multiples of this


def circular(values: Sequence[Mapping[str, Any]]) -> float:
    """MMBench's score (Liu et al. 2023, arXiv 2307.06281), 0-1: a question counts where all rotations of its options are right.

    It is what lmms-eval's `eval_result(eval_method="static")` gives, which takes a second for all questions, and would for
    every part of them that an interval asks for.
    """
    right: dict[int, float] = defaultdict(lambda: 1.0)
    for value in values:
        right[value["index"] % ROTATED] *= rotation(value)
    asked = [value["index"] for value in values if value["index"] < ROTATED]
    return sum(right[index] for index in asked) / len(asked)


def rotations(dataset: "Dataset") -> list[int]:
    """What names the rotations of one question."""
    return [index % ROTATED for index in dataset.with_format(None)["index"]]


def rotation(value: Mapping[str, Any]) -> float:
    """Whether MMBench's static evaluation finds the right letter in one answer."""
    return float(_found(str(value["prediction"]), *(value[letter] for letter in LETTERS)) == value["answer"])


@lru_cache(maxsize=1 << 16)
def _found(prediction: str, *options: str | None) -> str:
    """The letter in an answer: alone, else by the one option whose text is in it, else in any form of a letter."""
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
    from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator

    there = {letter: option for letter, option in zip(LETTERS, options, strict=True) if option is not None}
    return MMBench_Evaluator().can_infer(prediction, dict(there)) or extract_mcq_answer(prediction, choices=sorted(there))


def same_letter(value: Mapping[str, Any]) -> float:
    """SEED-Bench's score of an answer, whose first character is the letter."""
    return float(value["pred"].lower().strip() == value["answer"].lower().strip())


def only_images(dataset: "Dataset") -> "Dataset":
    """SEED-Bench's questions about one image; those about the frames of a video are left out."""
    kinds = dataset.with_format(None)["data_type"]
    return dataset.select([row for row, kind in enumerate(kinds) if kind == "image"])


def mmmu_right(value: Mapping[str, Any]) -> float:
    """MMMU's score of an answer, by lmms-eval's own rules for letters and for open answers."""
    from lmms_eval.tasks.mmmu.utils import evaluate_mmmu

    return float(evaluate_mmmu([value])[1]["acc"])


def mmmu_mean(values: Sequence[Mapping[str, Any]]) -> float:
    """MMMU's share of right answers, which lmms-eval rounds to five digits."""
    return sum(map(mmmu_right, values)) / len(values)


def _mmbench(name: str, task: str, title: str, config: str) -> SuiteSpec:
    """Without a judge: answers are read by rules, lmms-eval's `static` evaluation, in both languages."""
    return SuiteSpec(
        name,
        task,
        "mmbench",
        Metric("gpt_eval_score", score=rotation, aggregate=circular),
        title,
        "lmms-lab-encoder/MMBench",
        Part(
            config,
            "dev",
            ("index", "question", "hint", "answer", *LETTERS, "category", "L2-category", "source", "split", "image"),
        ),
        together=rotations,
        labels=in_turn(texts("question"), filled("index"), distinct("index"), letters("answer", LETTERS)),
        options={"metric_list": [{"metric": "gpt_eval_score", "aggregation": circular, "higher_is_better": True}]},
    )


SUITES = (
    SuiteSpec(
        "scienceqa",
        "scienceqa_img",
        "scienceqa",
        Metric("exact_match", MEAN),
        "ScienceQA",
        "lmms-lab-encoder/ScienceQA",
        Part("ScienceQA-IMG", "test", ("image", "question", "choices", "answer", "hint")),
        labels=in_turn(texts("question"), choices),
        chance=100 / 5,  # of the longest list
    ),
    _mmbench("mmbench", "mmbench_en_dev_static", "MMBench", "en"),
    _mmbench("mmbench-cn", "mmbench_cn_dev", "MMBench-CN", "cn"),
    SuiteSpec.alike(
        "seedbench",
        Metric("seed_image", MEAN, score=same_letter),
        "SEED-Bench, images",
        "lmms-lab-encoder/SEED-Bench",
        Part(
            None,
            "test",
            (
                *("answer", "choice_a", "choice_b", "choice_c", "choice_d", "data_type", "question", "question_id"),
                *("question_type_id", "image"),
            ),
        ),
        stratum="question_type_id",
        labels=in_turn(
            texts("question"), filled("data_type"), letters("answer", ("choice_a", "choice_b", "choice_c", "choice_d"))
        ),
        options={"process_docs": only_images},
        several=True,
        chance=25.0,
    ),
    SuiteSpec.alike(
        "ai2d",
        Metric("exact_match", MEAN),
        "AI2D",
        "lmms-lab-encoder/ai2d",
        Part(None, "test", ("question", "options", "answer", "image")),
        labels=in_turn(texts("question"), option_numbers),
        chance=25.0,
    ),
    SuiteSpec(
        "mmmu",
        "mmmu_val",
        "mmmu",
        Metric("mmmu_acc", MEAN, score=mmmu_right, aggregate=mmmu_mean),
        "MMMU",
        "lmms-lab-encoder/MMMU",
        Part(None, "validation", ("id", "question", "options", "answer", "question_type", "image_1")),
        labels=in_turn(texts("id", "question", "answer", "question_type"), lists_as_text),
    ),
    SuiteSpec.alike(
        "mmstar",
        Metric("average"),
        "MMStar",
        "Lin-Chen/MMStar",
        Part(None, "val", ("index", "question", "image", "answer", "category", "l2_category")),
        stratum="l2_category",
        labels=texts("question", "answer", "category", "l2_category"),
    ),
    SuiteSpec.alike(
        "realworldqa",
        Metric("exact_match", MEAN),
        "RealWorldQA",
        "lmms-lab-encoder/RealWorldQA",
        Part(None, "test", ("image", "question", "answer")),
        labels=texts("question", "answer"),
    ),
)
