"""The tables of the mini suites whose answer is an option: MMBench in English and Chinese, SEED-Bench, AI2D."""

from collections.abc import Callable, Iterator, Sized
from dataclasses import replace
from random import Random

from datasets import Image, List, Value

from harness.scenes import questions, world
from harness.scenes.mini.asking import scenes
from harness.scenes.mini.chinese import in_chinese
from harness.scenes.mini.table import Row, Table, png, table_of
from harness.scenes.questions import KINDS, Question
from harness.scenes.world import Scene

LETTERS = "ABCD"
ROTATED = 1_000_000
"""MMBench tells the rotations of a question's options apart by multiples of this number in its index."""
TOPICS = {
    **dict.fromkeys(("color", "shape"), "attribute_recognition"),
    **dict.fromkeys(("where", "count"), "object_localization"),
    **dict.fromkeys(("word", "number"), "ocr"),
}
"""MMBench's category of each kind of question."""
SEED_TYPES = {"color": 3, "shape": 3, "where": 4, "count": 5, "word": 9, "number": 9}
"""SEED-Bench's question types: instance attributes, instance location, instances counting, text understanding."""


def mmbench_en(least: int = 100) -> list[Table]:
    """Questions with their options in every rotation, as the circular evaluation wants them."""
    return [_mmbench("mmbench_en_dev_static/en/dev.parquet", 6, least, "nan", lambda question: question)]


def mmbench_cn(least: int = 100) -> list[Table]:
    """The same of other scenes, in Chinese."""
    return [_mmbench("mmbench_cn_dev/cn/dev.parquet", 7, least, None, in_chinese)]


def _mmbench(path: str, suite: int, least: int, nothing: str | None, worded: Callable[[Question], Question]) -> Table:
    rows: list[Row] = []
    for number, (scene, question) in enumerate(_asked(suite, rows, least, each=1)):
        picture, asked = png(scene), worded(question)
        for turn in range(len(asked.choices)):
            turned = asked.choices[turn:] + asked.choices[:turn]
            options = dict.fromkeys(LETTERS, nothing) | dict(zip(LETTERS, turned, strict=False))
            right = turned.index(asked.choices[LETTERS.index(asked.answer)])
            rows.append(
                {
                    "index": number + ROTATED * turn,
                    "question": asked.text,
                    "hint": asked.hint or nothing,
                    "answer": LETTERS[right],
                    **options,
                    "category": TOPICS[question.kind],
                    "image": picture,
                    "source": "scenes",
                    "L2-category": "finegrained_perception (instance-level)",
                    "comment": nothing,
                    "split": "dev",
                }
            )
    return table_of(path, rows, **dict.fromkeys(("hint", *LETTERS, "comment"), Value("string")))


def seedbench(least: int = 100) -> list[Table]:
    """Questions about one picture each, which stands in a list as the frames of a video would."""
    rows: list[Row] = []
    for scene, question in _asked(8, rows, least, each=3, options=4):
        rows.append(
            {
                "answer": question.answer,
                **{f"choice_{letter.lower()}": choice for letter, choice in zip(LETTERS, question.choices, strict=True)},
                "data_id": f"{scene.seed}",
                "data_type": "image",
                "question": question.text,
                "question_id": f"{len(rows)}",
                "question_type_id": SEED_TYPES[question.kind],
                "image": [png(scene)],
                "segment": None,
            }
        )
        if len(rows) >= least:  # in the midst of a scene's
            break
    types = {"question_type_id": Value("int16"), "image": List(Image()), "segment": List(Value("int64"))}
    return [table_of("seedbench/default/test.parquet", rows, **types)]


def ai2d(least: int = 100) -> list[Table]:
    """Questions about what stands where; the answer is the number of an option, as text."""
    rows: list[Row] = []
    for scene, rng in scenes(9, rows, least):
        picture, found = png(scene), set()
        for kind in ("relation", "at", "relation", "at"):
            question = KINDS[kind](scene, rng)
            if question is None or question.text in found:
                continue
            found.add(question.text)
            options = _things(scene, rng, question.answer)
            rows.append(
                {"question": question.text, "options": options, "answer": str(options.index(question.answer)), "image": picture}
            )
    return [table_of("ai2d/default/test.parquet", rows)]


def kind_of(question: Question) -> str:
    """Which kind of question has these options."""
    pools = {"color": world.COLORS, "shape": world.SHAPES, "where": world.CELLS, "count": tuple("012345")}
    for kind, pool in pools.items():
        if set(question.choices) <= set(pool):
            return kind
    return "number" if question.choices[0].isdigit() else "word"


def _asked(suite: int, made: Sized, least: int, each: int, options: int | None = None) -> Iterator[tuple[Scene, Question]]:
    """Multiple-choice questions, `each` of a scene that has so many; only those with so many options, where that is asked."""
    for scene, rng in scenes(suite, made, least):
        found: dict[str, Question] = {}
        for _ in range(6 * each):
            question = questions.multiple_choice(scene, rng)
            if question is not None and options in (None, len(question.choices)) and len(found) < each:
                found.setdefault(question.text, replace(question, kind=kind_of(question)))
        if len(found) == each:
            yield from ((scene, question) for question in found.values())


def _things(scene: Scene, rng: Random, answer: str) -> list[str]:
    """Four classes, among them the answer and others of the scene."""
    here = sorted({thing.name for thing in scene.things} - {answer})
    options = [answer, *rng.sample(here, min(3, len(here)))]
    while len(options) < 4:
        name = " ".join(rng.choice(world.ALL_CLASSES))
        options += [name] if name not in options else []
    rng.shuffle(options)
    return options
