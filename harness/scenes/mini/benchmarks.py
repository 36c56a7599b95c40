"""The tables of each mini suite and of the calibration set, in the columns of the public data set that an lmms-eval task reads.

Each suite is filled with scenes from a range of seeds of its own.
"""

from collections.abc import Callable
from random import Random

from datasets import Value

from harness.scenes import draw, questions, world
from harness.scenes.mini.asking import POPE_EACH, POPE_SPLITS, absent_classes, asked, mme_pair, scenes, ten_answers
from harness.scenes.mini.multiple_choice import ai2d, mmbench_cn, mmbench_en, seedbench
from harness.scenes.mini.open_ended import chartqa, ocrbench, refcoco, vizwiz
from harness.scenes.mini.table import Row, Table, png, table_of
from harness.scenes.prompts import prompt
from harness.scenes.questions import KINDS, Question

YES_NO_ENDING = " Please answer yes or no."
CALIBRATION_SAMPLES = 512
GQA_KINDS = ("relation", "color", "shape", "where", "at", "exist", "color y/n", "position y/n")
_ANSWER_TYPES = {"count": "number", **dict.fromkeys(("exist", "count y/n", "color y/n"), "yes/no")}
VQA_KINDS = ("exist", "count", "count y/n", "color", "color y/n", "shape", "relation", "at")


def gqa(images: int = 130) -> list[Table]:
    """Five questions an image; images and questions in two files."""
    picture_rows: list[Row] = []
    rows: list[Row] = []
    for scene, rng in scenes(0, picture_rows, images):
        found = asked(scene, rng, GQA_KINDS, most=5)
        if len(found) < 5:
            continue
        name = f"n{scene.seed}"
        picture_rows.append({"id": name, "image": png(scene)})
        for question in found:
            rows.append(
                {
                    "id": f"{len(rows):08d}",
                    "imageId": name,
                    "question": question.text,
                    "answer": question.answer,
                    "fullAnswer": question.answer.capitalize() + ".",
                    "isBalanced": True,
                    "types": {
                        "detailed": question.kind,
                        "semantic": question.kind.split()[0],
                        "structural": "verify" if question.answer in ("yes", "no") else "query",
                    },
                }
            )
    return [
        table_of("gqa/testdev_balanced_instructions/testdev.parquet", rows),
        table_of("gqa/testdev_balanced_images/testdev.parquet", picture_rows),
    ]


def vqav2(images: int = 130) -> list[Table]:
    """Five questions an image, each with ten people's answers."""
    rows: list[Row] = []
    for scene, rng in scenes(1, rows, 5 * images):
        found = asked(scene, rng, VQA_KINDS, most=5)
        if len(found) < 5:
            continue
        picture = png(scene)
        for number, question in enumerate(found):
            answers = ten_answers(question, scene, rng)
            rows.append(
                {
                    "question_type": " ".join(question.text.split()[:2]).lower(),
                    "multiple_choice_answer": question.answer,
                    "answers": [
                        {"answer": answer, "answer_confidence": "yes", "answer_id": index}
                        for index, answer in enumerate(answers, start=1)
                    ],
                    "image_id": scene.seed,
                    "answer_type": _ANSWER_TYPES.get(question.kind, "other"),
                    "question_id": scene.seed * 10 + number,
                    "question": question.text,
                    "image": picture,
                }
            )
    return [table_of("vqav2_val/default/validation.parquet", rows)]


def textvqa(least_questions: int = 600) -> list[Table]:
    """A question about every word and number under a thing, up to four an image."""
    rows: list[Row] = []
    for scene, rng in scenes(2, rows, least_questions):
        texts = [thing for thing in scene.things if thing.text]
        if len(texts) < 2:
            continue
        picture = png(scene)
        for thing in rng.sample(texts, min(4, len(texts))):
            question = questions.reading(scene, rng, thing)
            rows.append(
                {
                    "image_id": f"{scene.seed:x}",
                    "question_id": len(rows),
                    "question": question.text,
                    "question_tokens": question.text.lower().rstrip("?").split(),
                    "image": picture,
                    "image_width": draw.SIZE,
                    "image_height": draw.SIZE,
                    "answers": ten_answers(question, scene, rng),
                    "image_classes": sorted({other.shape for other in scene.things}),
                    "set_name": "val",
                    "ocr_tokens": [other.text for other in texts],
                }
            )
    return [table_of("textvqa_val/default/validation.parquet", rows)]


def pope(images: int = 100) -> list[Table]:
    """Three present and three absent classes an image in each split, as in the paper."""
    splits: dict[str, list[Row]] = {split: [] for split in POPE_SPLITS}
    for scene, rng in scenes(3, splits["random"], 2 * POPE_EACH * images):
        present = sorted({thing.name for thing in scene.things})
        if len(present) < POPE_EACH:
            continue
        picture, there = png(scene), rng.sample(present, POPE_EACH)
        for split, rows in splits.items():
            missing = absent_classes(scene, split, rng)
            for yes, no in zip(there, missing, strict=True):
                for name in (yes, no):
                    question = questions.exist_question(name, present=name == yes)
                    rows.append(
                        {
                            "id": str(len(rows)),
                            "question_id": str(len(rows) + 1),
                            "question": question.text,
                            "answer": question.answer,
                            "image_source": f"scene_{scene.seed}",
                            "image": picture,
                            "category": split,
                        }
                    )
    together = [{**row, "id": str(index)} for index, row in enumerate(row for rows in splits.values() for row in rows)]
    return [
        table_of("pope/default/test.parquet", together),
        *(table_of(f"pope/Full/{split}.parquet", rows) for split, rows in splits.items()),
    ]


MME_CATEGORIES = ("existence", "count", "position", "color", "OCR")


def mme(images: int = 60) -> list[Table]:
    """A pair of questions in each of five categories an image."""
    rows: dict[str, list[Row]] = {category: [] for category in MME_CATEGORIES}
    for scene, rng in scenes(4, rows["OCR"], 2 * images):
        pairs = {category: mme_pair(category, scene, rng) for category in MME_CATEGORIES}
        if None in pairs.values():
            continue
        picture = png(scene)
        for category, pair in pairs.items():
            for question in pair or ():
                rows[category].append(
                    {
                        "question_id": f"{category}/{len(rows[category]) // 2:04d}.png",
                        "image": picture,
                        "question": question.text + YES_NO_ENDING,
                        "answer": question.answer.capitalize(),
                        "category": category,
                    }
                )
    return [table_of("mme/default/test.parquet", [row for category in rows.values() for row in category])]


def scienceqa(images: int = 200) -> list[Table]:
    """Three multiple-choice questions an image."""
    rows: list[Row] = []
    for scene, rng in scenes(5, rows, 3 * images):
        found: dict[str, Question] = {}
        for _ in range(12):
            question = questions.multiple_choice(scene, rng)
            if question is not None and len(found) < 3:
                found.setdefault(question.text, question)
        if len(found) < 3:
            continue
        picture = png(scene)
        for question in found.values():
            rows.append(
                {
                    "image": picture,
                    "question": question.text,
                    "choices": list(question.choices),
                    "answer": "ABCDE".index(question.answer),
                    "hint": question.hint,
                    "task": "closed choice",
                    "grade": "grade1",
                    "subject": "natural science",
                    "topic": "pictures",
                    "category": "Scenes",
                    "skill": "Look at a scene",
                    "lecture": "",
                    "solution": "",
                }
            )
    return [table_of("scienceqa_img/ScienceQA-IMG/test.parquet", rows, answer=Value("int8"))]


def calibration(samples: int = CALIBRATION_SAMPLES) -> list[Table]:
    """One sample an image, kind after kind: the prompt as a task would give it, and the answer."""
    rows: list[Row] = []
    for seed in world.CALIBRATION_SEEDS:
        scene, rng = world.sample(seed), Random(seed * 2 + 2)
        question = list(KINDS.values())[len(rows) % len(KINDS)](scene, rng)
        if question is not None:
            rows.append({"image": png(scene), "question": prompt(question), "answer": question.answer})
        if len(rows) == samples:
            break
    return [table_of("calibration.parquet", rows)]


MAKERS: dict[str, Callable[[], list[Table]]] = {
    "gqa": gqa,
    "vqav2_val": vqav2,
    "textvqa_val": textvqa,
    "pope": pope,
    "mme": mme,
    "scienceqa_img": scienceqa,
    "vizwiz_vqa_val": vizwiz,
    "mmbench_en_dev_static": mmbench_en,
    "mmbench_cn_dev": mmbench_cn,
    "seedbench": seedbench,
    "ai2d": ai2d,
    "chartqa": chartqa,
    "ocrbench": ocrbench,
    "refcoco_bbox_rec_val": refcoco,
    "calibration": calibration,
}
"""What writes each suite, and the calibration set."""
