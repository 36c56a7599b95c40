"""Suites with answers in words: GQA, VQAv2, TextVQA, VizWiz, ChartQA, DocVQA, InfographicVQA, OCRBench, MM-Vet."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.answers import MEAN
from harness.tasks.labels import distinct, filled, image_ids, in_turn, references, texts, told_apart_references
from harness.tasks.shipped.columns import answer_lists, one_of
from harness.tasks.spec import Metric, Part, SuiteSpec

_EXACT = Metric("exact_match", MEAN)
_ANLS = Metric("anls", MEAN)
_OCR_TYPES = (
    *("Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition", "Handwriting Recognition"),
    *("Digit String Recognition", "Non-Semantic Text Recognition", "Scene Text-centric VQA", "Doc-oriented VQA"),
    *("Key Information Extraction", "Handwritten Mathematical Expression Recognition"),
)


def mean_score(values: Sequence[Mapping[str, Any]]) -> float:
    """OCRBench's share of right answers.

    lmms-eval divides by 1000, however many questions were asked, and goes on adding to the sums of a process's earlier runs.
    """
    return sum(value["score"] for value in values) / len(values)


def _documents(name: str, task: str, folder: str, title: str, config: str) -> SuiteSpec:
    return SuiteSpec(
        name,
        task,
        folder,
        _ANLS,
        title,
        "lmms-lab-encoder/DocVQA",
        Part(config, "validation", ("questionId", "question", "image", "answers")),
        labels=in_turn(texts("question"), distinct("questionId"), answer_lists("answers")),
    )


_TEXTVQA = SuiteSpec(
    "textvqa",
    "textvqa_val",
    "textvqa",
    _EXACT,
    "TextVQA",
    "lmms-lab-encoder/textvqa",
    Part(None, "validation", ("image", "question", "question_id", "answers")),
    cluster="image_id",
    labels=in_turn(texts("question"), distinct("question_id"), references),
)
_WITH_OCR_TOKENS = {"pre_prompt": "", "post_prompt": "\nAnswer the question using a single word or phrase.", "ocr": True}

SUITES = (
    SuiteSpec.alike(
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
    _TEXTVQA,
    SuiteSpec(
        "vizwiz",
        "vizwiz_vqa_val",
        "vizwiz_vqa",
        _EXACT,
        "VizWiz",
        "lmms-lab-encoder/VizWiz-VQA",
        Part(None, "val", ("question_id", "question", "answers", "image")),
        labels=in_turn(texts("question"), distinct("question_id"), references),
    ),
    replace(
        _TEXTVQA,
        name="textvqa-ocr",
        title="TextVQA with OCR tokens",
        questions=Part(None, "validation", ("image", "question", "question_id", "answers", "ocr_tokens")),
        labels=in_turn(_TEXTVQA.labels, filled("ocr_tokens")),
        options={"lmms_eval_specific_kwargs": {"default": _WITH_OCR_TOKENS}},
    ),
    SuiteSpec.alike(
        "chartqa",
        Metric("relaxed_overall", MEAN),
        "ChartQA",
        "lmms-lab-encoder/ChartQA",
        Part(None, "test", ("type", "question", "answer", "image")),
        stratum="type",
        labels=in_turn(texts("question", "answer"), filled("type")),
    ),
    _documents("docvqa", "docvqa_val", "docvqa", "DocVQA", "DocVQA"),
    _documents("infovqa", "infovqa_val", "infovqa", "InfographicVQA", "InfographicVQA"),
    SuiteSpec.alike(
        "ocrbench",
        Metric("ocrbench_accuracy", MEAN, aggregate=mean_score),
        "OCRBench",
        "echo840/OCRBench",
        Part(None, "test", ("dataset", "question", "question_type", "answer", "image")),
        stratum="question_type",
        labels=in_turn(texts("question"), one_of("question_type", *_OCR_TYPES), answer_lists("answer")),
    ),
    SuiteSpec.alike(
        "mmvet",
        Metric("gpt_eval_score", MEAN, full=100.0),
        "MM-Vet",
        "lmms-lab-encoder/MMVet",
        Part(None, "test", ("question_id", "image", "question", "answer", "capability")),
        labels=texts("question", "answer", "capability"),
        judge=True,
    ),
)
