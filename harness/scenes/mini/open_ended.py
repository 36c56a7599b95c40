"""The tables of the mini suites with free answers: VizWiz, ChartQA, OCRBench, and RefCOCO, whose answers are boxes."""

from random import Random

from datasets import List, Value

from harness.scenes import draw, questions
from harness.scenes.mini.asking import POPE_SPLITS, absent_classes, asked, scenes, ten_answers
from harness.scenes.mini.table import Row, Table, png, table_of
from harness.scenes.questions import KINDS
from harness.scenes.world import CELLS, Scene, Thing

VIZWIZ_KINDS = ("count", "color", "shape", "at", "word", "number", "exist")
UNANSWERABLE = "unanswerable"
CAPTION = "Please carefully observe the area circled in the image and come up with a caption for the area."
"""The question that stands beside every expression of the public RefCOCO; lmms-eval's grounding tasks do not ask it."""


def vizwiz(least: int = 100) -> list[Table]:
    """Three questions an image with ten people's answers; one of them about what is not there, which is unanswerable."""
    rows: list[Row] = []
    for scene, rng in scenes(10, rows, least):
        found = asked(scene, rng, VIZWIZ_KINDS, most=2)
        if len(found) < 2:
            continue
        name = rng.choice(absent_classes(scene, rng.choice(POPE_SPLITS), rng))
        said = [(question.text, ten_answers(question, scene, rng)) for question in found]
        said.append((f"What word is under the {name}?", [*[UNANSWERABLE] * 9, "nothing"]))
        picture = png(scene)
        for words, answers in said:
            rows.append(
                {
                    "question_id": f"VizWiz_val_{len(rows):08d}",
                    "image": picture,
                    "question": words,
                    "answers": answers,
                    "category": UNANSWERABLE if UNANSWERABLE in answers else "other",
                }
            )
    return [table_of("vizwiz_vqa_val/default/val.parquet", rows)]


def chartqa(least: int = 100) -> list[Table]:
    """Numbers that are read off and things that are counted, asked by people; words that are read off, by a machine."""
    rows: list[Row] = []
    for scene, rng in scenes(11, rows, least):
        picture = png(scene)
        for question in filter(None, (KINDS[kind](scene, rng) for kind in ("number", "count", "word"))):
            machine = question.kind == "word"
            rows.append(
                {
                    "type": "augmented_test" if machine else "human_test",
                    "question": question.text,
                    "answer": question.answer,
                    "image": picture,
                }
            )
    return [table_of("chartqa/default/test.parquet", rows)]


def ocrbench(least: int = 100) -> list[Table]:
    """What is written under a thing, in four of the ten types of question."""
    rows: list[Row] = []
    for scene, rng in scenes(12, rows, least):
        texts = [thing for thing in scene.things if thing.text]
        if len(texts) < 3:
            continue
        picture = png(scene)
        for thing in rng.sample(texts, 3):
            question, dataset, kind = _reading(scene, rng, thing)
            rows.append(
                {"dataset": dataset, "question": question, "question_type": kind, "answer": [thing.text], "image": picture}
            )
    return [table_of("ocrbench/default/test.parquet", rows)]


def _reading(scene: Scene, rng: Random, thing: Thing) -> tuple[str, str, str]:
    """A question about a text, the data set it would come from, and its type."""
    question = questions.reading(scene, rng, thing).text
    if thing.text.isdigit():
        return question, "ORAND", "Digit String Recognition"
    return rng.choice(
        (
            (question, "textVQA", "Scene Text-centric VQA"),
            (question, "FUNSD", "Key Information Extraction"),
            (f"what is written in the {CELLS[thing.cell]} of the image?", "IIIT5K", "Regular Text Recognition"),
        )
    )


def refcoco(least: int = 60) -> list[Table]:
    """Three things an image, each with one or two expressions that name it and no other."""
    rows: list[Row] = []
    for scene, rng in scenes(13, rows, least):
        unique = scene.unique()
        if len(unique) < 3:
            continue
        picture, boxes = png(scene), draw.boxes(scene)
        for thing in rng.sample(unique, 3):
            left, top, wide, tall = boxes[thing]
            right, below = left + wide, top + tall
            said = [thing.name, f"the {thing.name} in the {CELLS[thing.cell]}"]
            rows.append(
                {
                    "question_id": f"{len(rows)}",
                    "image": picture,
                    "question": CAPTION,
                    "answer": rng.sample(said, rng.randint(1, 2)),
                    "segmentation": [left, top, right, top, right, below, left, below],
                    "bbox": [left, top, wide, tall],
                    "iscrowd": 0,
                    "file_name": f"scene_{scene.seed}.png",
                }
            )
    numbers = List(Value("float32"))
    types = {"segmentation": numbers, "bbox": numbers, "iscrowd": Value("int8")}
    return [table_of("refcoco_bbox_rec_val/default/val.parquet", rows, **types)]
