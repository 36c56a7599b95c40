"""The drawn world: the same everywhere, true to its labels, and asked about truthfully."""

import hashlib
import re
from collections import Counter
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from harness.scenes import draw, world
from harness.scenes.questions import KINDS, OPPOSITE, Question, ask, opposite
from harness.scenes.world import CELLS, COLORS, SHAPES, Scene
from training.evaluate import majority

PIXELS_OF_FIRST_SCENES = "d73e3a5225d6a57f8f3baad7f1936f205b935df5a1fd48b5f74d169a71693026"
YES_NO = ("exist", "count y/n", "color y/n", "word y/n", "position y/n")


def test_pixels_are_the_same_on_every_machine():
    digest = hashlib.sha256(b"".join(draw.pixels(world.sample(seed)).tobytes() for seed in range(50)))
    assert digest.hexdigest() == PIXELS_OF_FIRST_SCENES


def test_seed_ranges_are_disjoint():
    ranges = sorted(
        (world.TRAIN_SEEDS, world.HELD_OUT_SEEDS, world.CALIBRATION_SEEDS, world.STATISTICS_SEEDS, world.SUITE_SEEDS),
        key=lambda seeds: seeds.start,
    )
    assert all(before.stop <= after.start for before, after in pairwise(ranges))


def test_scenes_are_crowded_and_classes_uneven():
    scenes = [world.sample(seed) for seed in range(2000)]
    assert {len(scene.things) for scene in scenes} == {4, 5, 6, 7, 8}
    frequency = Counter(thing.name for scene in scenes for thing in scene.things)
    assert len(frequency) == 64
    assert frequency.most_common()[0][1] > 4 * frequency.most_common()[-1][1]
    assert min(frequency.values()) > 50


def test_patch_labels_agree_with_the_pixels():
    shown = []
    for seed in range(100):
        scene = world.sample(seed)
        pixels, labels = draw.pixels(scene), draw.patch_labels(scene)
        patches = pixels.reshape(12, 8, 12, 8, 3).transpose(0, 2, 1, 3, 4)
        for row, column in np.argwhere(labels["color"] > 0):
            color = draw.RGB[COLORS[labels["color"][row, column] - 1]]
            shown.append((patches[row, column] == color).all(axis=-1).any())
        for row, column in np.argwhere(labels["character"] > 0):
            character = draw.CHARACTERS[labels["character"][row, column] - 1]
            ink = np.isin(patches[row, column].sum(axis=-1), [sum(color) for color in draw.INKS]).sum()
            assert ink == draw.glyph(character).sum(), (seed, row, column)
        seen = sum(4 + len(thing.text) for thing in scene.things)
        assert ((labels["shape"] > 0) | (labels["character"] > 0)).sum() == seen
    assert 0.95 < np.mean(shown) < 1, "all but the empty corners of small moons and triangles show their colour"


def test_every_shape_and_glyph_differs():
    assert len({draw.outline(shape, 5.5, 0, 0).tobytes() for shape in SHAPES}) == len(SHAPES)
    assert len({draw.glyph(character).tobytes() for character in draw.CHARACTERS}) == 36


def independent_answer(scene: Scene, question: Question) -> str:
    """The answer worked out from the question's words alone."""
    at_cell = {CELLS[thing.cell]: thing for thing in scene.things}
    asked = question.text
    colors = [word for word in re.findall(r"[a-z]+", asked) if word in COLORS]
    shapes = [word for word in re.findall(r"[a-z]+", asked) if word in SHAPES]
    place = next((cell for cell in sorted(CELLS, key=len, reverse=True) if asked.rstrip("?").endswith(f"in the {cell}")), None)
    found = [thing for thing in scene.things if thing.color in colors[:1] and thing.shape in shapes[:1]]
    if question.kind == "exist":
        return "yes" if found else "no"
    if question.kind in ("count", "count y/n"):
        counted = [
            t for t in scene.things if t.color in colors or any(t.shape in word for word in asked.split() if word[-1] == "s")
        ]
        number = re.search(r"\d", asked)
        return str(len(counted)) if number is None else "yes" if len(counted) == int(number.group()) else "no"
    if question.kind in ("color", "shape"):
        subject = at_cell[place] if place else next(t for t in scene.things if t.shape in shapes or t.color in colors)
        return getattr(subject, question.kind)
    if question.kind == "where":
        return CELLS[found[0].cell]
    if question.kind == "at":
        return at_cell[place].name
    if question.kind in ("word", "number"):
        return at_cell[place].text if place else found[0].text
    if question.kind == "word y/n":
        return "yes" if asked.split('"')[1] in {thing.text for thing in scene.things} else "no"
    raise AssertionError(question.kind)


@pytest.mark.parametrize("kind", ["exist", "count", "count y/n", "color", "shape", "where", "at", "word", "number", "word y/n"])
def test_answers_are_true(kind):
    asked = 0
    for seed in range(300):
        scene = world.sample(seed)
        question = KINDS[kind](scene, Random(seed))
        if question is not None:
            asked += 1
            assert question.answer == independent_answer(scene, question), (seed, question)
    assert asked > 150


def test_relations_are_to_the_next_cell():
    steps = {"to the left of": (0, -1), "to the right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
    for seed in range(300):
        scene = world.sample(seed)
        question = KINDS["relation"](scene, Random(seed))
        if question is None:
            continue
        phrase, name = re.fullmatch(r"What is (.*) the (\w+ \w+)\?", question.text).groups()
        (subject,) = scene.named(name)
        row, column = subject.row + steps[phrase][0], subject.column + steps[phrase][1]
        (other,) = [thing for thing in scene.things if (thing.row, thing.column) == (row, column)]
        assert other.name == question.answer


def test_positions_are_true_and_their_opposites_false():
    holds = {
        "on the left side": lambda thing, other: thing.column == 0,
        "on the right side": lambda thing, other: thing.column == 2,
        "in the upper part": lambda thing, other: thing.row == 0,
        "in the lower part": lambda thing, other: thing.row == 2,
        "to the left of": lambda thing, other: thing.column < other.column,
        "to the right of": lambda thing, other: thing.column > other.column,
        "above": lambda thing, other: thing.row < other.row,
        "below": lambda thing, other: thing.row > other.row,
    }
    for seed in range(400):
        scene = world.sample(seed)
        question = KINDS["position y/n"](scene, Random(seed))
        if question is None:
            continue
        for asked in (question, opposite(question)):
            name, phrase, rest = re.fullmatch(
                rf"Is the (\w+ \w+) ({'|'.join(holds)})(?: of the image| the (\w+ \w+))\?", asked.text
            ).groups()
            other = scene.named(rest)[0] if rest else None
            assert (asked.answer == "yes") == holds[phrase](scene.named(name)[0], other), (seed, asked)
        assert opposite(opposite(question)) == question
    assert all(OPPOSITE[OPPOSITE[side]] == side for side in OPPOSITE)


def test_multiple_choice_has_one_right_option():
    letters = Counter()
    for seed in range(600):
        question = KINDS["multiple choice"](world.sample(seed), Random(seed))
        if question is not None:
            assert len(set(question.choices)) == len(question.choices)
            letters[question.answer] += 1
            assert "ABCD".index(question.answer) < len(question.choices)
    assert set(letters) == set("ABCD")


@pytest.mark.parametrize("kind", YES_NO)
def test_the_question_alone_does_not_give_the_answer(kind):
    found = [KINDS[kind](world.sample(seed), Random(seed)) for seed in range(2000)]
    asked = [question for question in found if question is not None]
    assert majority(question.answer for question in asked) < 55
    by_words: dict[str, list[str]] = {}
    for question in asked:
        pattern = re.sub("|".join((*COLORS, *SHAPES, '"[a-z]+"')), "_", question.text)
        by_words.setdefault(pattern, []).append(question.answer)
    guessed = sum(max(Counter(answers).values()) for answers in by_words.values() if len(answers) >= 20)
    assert guessed / sum(len(answers) for answers in by_words.values() if len(answers) >= 20) < 0.62


def test_asking_needs_no_luck():
    scene = world.sample(3, least=1, most=1)
    assert len(ask(scene, Random(0), list(KINDS))) == len(KINDS)
