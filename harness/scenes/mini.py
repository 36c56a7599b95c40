"""Writes the mini suites: `python -m harness.scenes.mini [--out suites/data]`; in fine print with `--canvas 1x3`.

Each file has the columns of the public data set that an lmms-eval task reads, filled with scenes from a range of seeds of
its own. The same versions of pyarrow and Pillow write the same bytes every time.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from random import Random

import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from harness.scenes import draw, questions, world
from harness.scenes.draw import Canvas
from harness.scenes.prompts import prompt
from harness.scenes.questions import KINDS, Question
from harness.scenes.world import Scene

Row = dict[str, object]

YES_NO_ENDING = " Please answer yes or no."
POPE_SPLITS = ("adversarial", "popular", "random")
POPE_EACH = 3
STATISTICS_SCENES = 4000
CALIBRATION_SAMPLES = 512
GQA_KINDS = ("relation", "color", "shape", "where", "at", "exist", "color y/n", "position y/n")
VQA_KINDS = ("exist", "count", "count y/n", "color", "color y/n", "shape", "relation", "at")


@dataclass(frozen=True)
class Table:
    """The rows of one parquet file, below the data folder, and their columns' types."""

    path: str
    features: Features
    rows: list[Row]


def png(scene: Scene, canvas: Canvas = (1, 1)) -> dict[str, object]:
    """The scene as a value of an `Image` column."""
    buffer = io.BytesIO()
    draw.image(scene, canvas).save(buffer, "PNG", optimize=True)
    return {"bytes": buffer.getvalue(), "path": f"{scene.seed}.png"}


def fine_print(table: Table, canvas: Canvas) -> Table:
    """The same questions about the same scenes, drawn on a larger canvas; a picture's file name tells its seed."""

    def redrawn(value: object) -> object:
        if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
            return png(world.sample(int(str(value["path"]).removesuffix(".png"))), canvas)
        return value

    rows = [{name: redrawn(value) for name, value in row.items()} for row in table.rows]
    return Table(table.path, table.features, rows)


def scenes(suite: int) -> Iterator[tuple[Scene, Random]]:
    """The scenes of one suite, each with a generator for its questions."""
    start = world.SUITE_SEEDS.start + suite * 10_000_000
    for seed in range(start, start + 10_000_000):
        yield world.sample(seed), Random(seed * 2 + 2)


def asked(scene: Scene, rng: Random, kinds: tuple[str, ...], most: int) -> list[Question]:
    """Up to `most` different questions of different kinds; fewer where the scene does not have them."""
    found = (KINDS[kind](scene, rng) for kind in rng.sample(kinds, len(kinds)))
    return [question for question in found if question is not None][:most]


def text(*names: str) -> dict[str, Value]:
    """String columns."""
    return {name: Value("string") for name in names}


def gqa(images: int = 130) -> list[Table]:
    """Five questions an image; images and questions in two files."""
    picture_rows: list[Row] = []
    rows: list[Row] = []
    for scene, rng in scenes(0):
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
        if len(picture_rows) == images:
            break
    types = {"types": text("detailed", "semantic", "structural")}
    columns = Features({**text("id", "imageId", "question", "answer", "fullAnswer"), "isBalanced": Value("bool"), **types})
    return [
        Table("gqa/testdev_balanced_instructions/testdev.parquet", columns, rows),
        Table("gqa/testdev_balanced_images/testdev.parquet", Features({**text("id"), "image": Image()}), picture_rows),
    ]


def ten_answers(question: Question, scene: Scene, rng: Random) -> list[str]:
    """Ten people's answers: the truth, and for a third of the questions one or two who saw it otherwise."""
    answers = [question.answer] * 10
    if rng.random() < 1 / 3:
        for place in rng.sample(range(10), rng.randint(1, 2)):
            answers[place] = _misread(question, scene, rng)
    return answers


def _misread(question: Question, scene: Scene, rng: Random) -> str:
    if question.answer in ("yes", "no"):
        return "no" if question.answer == "yes" else "yes"
    if question.kind == "count":
        return str(abs(int(question.answer) + rng.choice((-1, 1))))
    if question.kind == "color":
        return rng.choice([color for color in world.COLORS if color != question.answer])
    if question.kind == "shape":
        return rng.choice([shape for shape in world.SHAPES if shape != question.answer])
    if question.kind in ("word", "number"):
        return question.answer[:-1]
    return rng.choice(scene.things).name


def vqav2(images: int = 130) -> list[Table]:
    """Five questions an image, each with ten people's answers."""
    rows: list[Row] = []
    for scene, rng in scenes(1):
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
                    "answer_type": "yes/no"
                    if question.answer in ("yes", "no")
                    else "number"
                    if question.kind == "count"
                    else "other",
                    "question_id": scene.seed * 10 + number,
                    "question": question.text,
                    "image": picture,
                }
            )
        if len(rows) == 5 * images:
            break
    answer = {**text("answer", "answer_confidence"), "answer_id": Value("int64")}
    features = Features(
        {
            **text("question_type", "multiple_choice_answer"),
            "answers": List(answer),
            "image_id": Value("int64"),
            **text("answer_type"),
            "question_id": Value("int64"),
            **text("question"),
            "image": Image(),
        }
    )
    return [Table("vqav2_val/default/validation.parquet", features, rows)]


def textvqa(least_questions: int = 600) -> list[Table]:
    """A question about every word and number under a thing, up to four an image."""
    rows: list[Row] = []
    for scene, rng in scenes(2):
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
        if len(rows) >= least_questions:
            break
    strings = List(Value("string"))
    features = Features(
        {
            **text("image_id"),
            "question_id": Value("int64"),
            **text("question"),
            "question_tokens": strings,
            "image": Image(),
            "image_width": Value("int64"),
            "image_height": Value("int64"),
            "answers": strings,
            "image_classes": strings,
            **text("set_name"),
            "ocr_tokens": strings,
        }
    )
    return [Table("textvqa_val/default/validation.parquet", features, rows)]


@lru_cache(maxsize=1)
def class_statistics() -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """In how many scenes each class appears, and each pair of classes (both orders), over scenes kept for this."""
    alone: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    for seed in world.STATISTICS_SEEDS[:STATISTICS_SCENES]:
        names = sorted({thing.name for thing in world.sample(seed).things})
        alone.update(names)
        for pair in combinations(names, 2):
            together.update((pair, pair[::-1]))
    return alone, together


def absent_classes(scene: Scene, split: str, rng: Random, count: int = POPE_EACH) -> list[str]:
    """Classes to ask for in vain, as the POPE paper (Li et al., 2023) chooses them.

    random: any that are absent; popular: the most frequent of those that are absent; adversarial: those that appear most
    often together with what is there.
    """
    alone, together = class_statistics()
    present = sorted({thing.name for thing in scene.things})
    absent = [f"{color} {shape}" for color, shape in world.ALL_CLASSES if f"{color} {shape}" not in present]
    if split == "random":
        return rng.sample(absent, count)
    if split == "popular":
        return sorted(absent, key=lambda name: (-alone[name], name))[:count]
    return sorted(absent, key=lambda name: (-sum(together[name, other] for other in present), name))[:count]


def pope(images: int = 100) -> list[Table]:
    """Three present and three absent classes an image in each split, as in the paper."""
    splits: dict[str, list[Row]] = {split: [] for split in POPE_SPLITS}
    for scene, rng in scenes(3):
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
        if len(splits["random"]) == 2 * POPE_EACH * images:
            break
    features = Features(
        {**text("id", "question_id", "question", "answer", "image_source"), "image": Image(), **text("category")}
    )
    together = [{**row, "id": str(index)} for index, row in enumerate(row for rows in splits.values() for row in rows)]
    return [
        Table("pope/default/test.parquet", features, together),
        *(Table(f"pope/Full/{split}.parquet", features, rows) for split, rows in splits.items()),
    ]


def mme_pair(category: str, scene: Scene, rng: Random) -> tuple[Question, Question] | None:
    """A question of one of MME's categories whose answer is yes, and its twin whose answer is no."""
    thing = rng.choice(scene.things)
    if category == "existence":
        name = rng.choice(absent_classes(scene, rng.choice(POPE_SPLITS), rng))
        return questions.exist_question(thing.name, True), questions.exist_question(name, False)
    if category == "count":
        counts = {what: number for what, number in questions.countable(scene).items() if 1 <= number <= questions.MOST_COUNTED}
        number = rng.choice(sorted(set(counts.values())))
        what = rng.choice([what for what, n in counts.items() if n == number])
        others = [n for n in (number - 1, number + 1) if 1 <= n <= questions.MOST_COUNTED]
        likely = [n for n in others if n in counts.values()] or others
        return questions.count_yes_no_question(what, number, True), questions.count_yes_no_question(
            what, rng.choice(likely), False
        )
    if category == "color":
        other = rng.choice([color for color in world.COLORS if color != thing.color])
        by_shape = sum(thing.shape == one.shape for one in scene.things) == 1 and rng.random() < 0.5
        return questions.color_yes_no_question(thing, by_shape, thing.color), questions.color_yes_no_question(
            thing, by_shape, other
        )
    if category == "OCR":
        words = [one.text for one in scene.things if one.text.isalpha()]
        if not words:
            return None
        missing = rng.choice([one for one in world.WORDS if one not in words])
        return questions.word_yes_no_question(rng.choice(words), True), questions.word_yes_no_question(missing, False)
    first = questions.position_yes_no(scene, rng)
    if first is None:
        return None
    second = questions.opposite(first)
    return (first, second) if first.answer == "yes" else (second, first)


MME_CATEGORIES = ("existence", "count", "position", "color", "OCR")


def mme(images: int = 60) -> list[Table]:
    """A pair of questions in each of five categories an image."""
    rows: dict[str, list[Row]] = {category: [] for category in MME_CATEGORIES}
    for scene, rng in scenes(4):
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
        if len(rows["OCR"]) == 2 * images:
            break
    features = Features({**text("question_id"), "image": Image(), **text("question", "answer", "category")})
    return [Table("mme/default/test.parquet", features, [row for category in rows.values() for row in category])]


def scienceqa(images: int = 200) -> list[Table]:
    """Three multiple-choice questions an image."""
    rows: list[Row] = []
    for scene, rng in scenes(5):
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
        if len(rows) == 3 * images:
            break
    features = Features(
        {
            "image": Image(),
            **text("question"),
            "choices": List(Value("string")),
            "answer": Value("int8"),
            **text("hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution"),
        }
    )
    return [Table("scienceqa_img/ScienceQA-IMG/test.parquet", features, rows)]


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
    return [Table("calibration.parquet", Features({"image": Image(), **text("question", "answer")}), rows)]


MAKERS: dict[str, Callable[[], list[Table]]] = {
    "gqa": gqa,
    "vqav2_val": vqav2,
    "textvqa_val": textvqa,
    "pope": pope,
    "mme": mme,
    "scienceqa_img": scienceqa,
    "calibration": calibration,
}
"""What writes each suite, and the calibration set."""


def encoder() -> str:
    """What the pictures are encoded with; another version may give other bytes for the same pixels."""
    return f"Pillow {PIL.__version__}"


def write(table: Table, out: Path) -> Path:
    """Writes one file below `out`, atomically; an image that several rows share is stored once."""
    path = out / table.path
    path.parent.mkdir(parents=True, exist_ok=True)
    arrow = pa.Table.from_pylist(table.rows, schema=table.features.arrow_schema)
    arrow = arrow.replace_schema_metadata({**arrow.schema.metadata, b"pillow": encoder().encode()})
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(arrow, unfinished, compression="zstd", use_dictionary=True, dictionary_pagesize_limit=1 << 24)
    os.replace(unfinished, path)
    return path


def _canvas(text: str) -> Canvas:
    tall, _, wide = text.partition("x")
    if not (tall.isdigit() and wide.isdigit() and 1 <= int(tall) <= 8 and 1 <= int(wide) <= 8):
        raise argparse.ArgumentTypeError(f"{text!r} is not two whole numbers from 1 to 8, such as 1x3")
    return int(tall), int(wide)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.scenes.mini", description="Write the mini suites and the calibration set."
    )
    parser.add_argument("--out", type=Path, default=Path("suites/data"), help="folder to write to (default: %(default)s)")
    parser.add_argument(
        "--canvas",
        type=_canvas,
        default=(1, 1),
        metavar="HxW",
        help="how many times 96 pixels the pictures are tall and wide; larger ones are fine print (default: 1x1)",
    )
    options = parser.parse_args(arguments)
    out, canvas = options.out, options.canvas
    try:
        for maker in MAKERS.values():
            for table in maker():
                path = write(table if canvas == (1, 1) else fine_print(table, canvas), out)
                print(f"{path}: {len(table.rows)} rows, {path.stat().st_size / 1e3:.0f} kB")
    except OSError as error:
        print(f"cannot write the mini suites: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
