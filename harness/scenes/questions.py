"""Questions about a scene, and their true answers.

Every kind is one function `(scene, rng) -> Question | None`, None where the scene has nothing to ask it about. Yes/no kinds
choose the answer first, by a fair coin, and words of the question that say nothing about it, so that the question alone
gives half of them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from harness.scenes.world import ALL_CLASSES, CELLS, COLORS, SHAPES, WORDS, Scene, Thing, themes

MOST_COUNTED = 5
SIDES = {"left": "on the left side", "right": "on the right side", "above": "in the upper part", "below": "in the lower part"}
DIRECTIONS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
STEPS = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}
HINT = "Look at the image."


@dataclass(frozen=True)
class Question:
    """A question of one kind. `choices` are the options of a multiple-choice question, whose answer is a letter; `hint` its
    context, often empty; `read` what an OCR engine read in the picture, where the prompt is to say so.
    """

    kind: str
    text: str
    answer: str
    choices: tuple[str, ...] = ()
    hint: str = ""
    read: tuple[str, ...] = ()


def article(name: str) -> str:
    """`a` or `an`."""
    return "an" if name[0] in "aeiou" else "a"


def exist_question(name: str, present: bool) -> Question:
    """Is there a thing of this class, e.g. `red circle`?"""
    return Question("exist", f"Is there {article(name)} {name} in the image?", _yes(present))


def exist(scene: Scene, rng: Random) -> Question | None:
    """Half of the absent classes are near misses: typical of a theme that is present, or with the colour or the shape of a
    thing that is there.
    """
    present = {(thing.color, thing.shape) for thing in scene.things}
    if rng.random() < 0.5:
        return exist_question(" ".join(rng.choice(sorted(present))), present=True)
    draw, thing = rng.random(), rng.choice(scene.things)
    if draw < 0.3:
        pool = [pair for theme in themes() if (thing.color, thing.shape) in theme for pair in theme]
    elif draw < 0.6:
        pool = [pair for pair in ALL_CLASSES if pair[0] == thing.color or pair[1] == thing.shape]
    else:
        pool = list(ALL_CLASSES)
    absent = [pair for pair in pool if pair not in present]
    return exist_question(" ".join(rng.choice(absent)), present=False) if absent else None


def plural(shape: str) -> str:
    """`circle` → `circles`."""
    return shape + ("es" if shape.endswith("s") else "s")


def countable(scene: Scene) -> dict[str, int]:
    """How many there are of each colour and each shape, absent ones too."""
    counts = Counter({f"{color} objects": 0 for color in COLORS} | {plural(shape): 0 for shape in SHAPES})
    for thing in scene.things:
        counts[f"{thing.color} objects"] += 1
        counts[plural(thing.shape)] += 1
    return dict(counts)


def count(scene: Scene, rng: Random) -> Question | None:
    """How many of a colour or a shape; the number is drawn first, so that high ones are met often."""
    counts = countable(scene)
    number = rng.choice(sorted(set(counts.values())))
    if number > MOST_COUNTED:
        return None
    what = rng.choice([what for what, n in counts.items() if n == number])
    return Question("count", f"How many {what} are in the image?", str(number))


def count_yes_no_question(what: str, number: int, truth: bool) -> Question:
    """Are there so many?"""
    return Question("count y/n", f"Are there {number} {what} in the image?", _yes(truth))


def count_yes_no(scene: Scene, rng: Random) -> Question | None:
    """The number is one that fits something in the scene, and then a coin says whether it fits what is asked about."""
    counts = countable(scene)
    numbers = sorted({n for n in counts.values() if 1 <= n <= MOST_COUNTED})
    number, truth = rng.choice(numbers), rng.random() < 0.5
    fitting = [what for what, n in counts.items() if (n == number if truth else 1 <= abs(n - number) <= 2 and n > 0)]
    return count_yes_no_question(rng.choice(fitting), number, truth) if fitting else None


def _lone(scene: Scene, attribute: str) -> list[Thing]:
    """Things whose colour (or shape) no other thing has."""
    counts = Counter(getattr(thing, attribute) for thing in scene.things)
    return [thing for thing in scene.things if counts[getattr(thing, attribute)] == 1]


def color(scene: Scene, rng: Random) -> Question | None:
    """The colour of the only thing of a shape, or of the thing in a place."""
    return _attribute(scene, rng, "color", "shape", "{}")


def shape(scene: Scene, rng: Random) -> Question | None:
    """The shape of the only thing of a colour, or of the thing in a place."""
    return _attribute(scene, rng, "shape", "color", "{} object")


def _attribute(scene: Scene, rng: Random, asked: str, by: str, named: str) -> Question:
    """An attribute of the only thing with another one, which names it, or of the thing in a place."""
    lone = _lone(scene, by)
    if lone and rng.random() < 0.6:
        thing = rng.choice(lone)
        subject = named.format(getattr(thing, by))
    else:
        thing = rng.choice(scene.things)
        subject = f"object in the {CELLS[thing.cell]}"
    return Question(asked, f"What {asked} is the {subject}?", getattr(thing, asked))


def relation(scene: Scene, rng: Random) -> Question | None:
    """What is in the next cell in one of four directions."""
    by_cell = {(thing.row, thing.column): thing for thing in scene.things}
    pairs = [
        (direction, thing, by_cell[thing.row + down, thing.column + right])
        for thing in scene.unique()
        for direction, (down, right) in STEPS.items()
        if (thing.row + down, thing.column + right) in by_cell
    ]
    if not pairs:
        return None
    direction, thing, other = rng.choice(pairs)
    return Question("relation", f"What is {DIRECTIONS[direction]} the {thing.name}?", other.name)


def where(scene: Scene, rng: Random) -> Question | None:
    """The place of a thing."""
    things = scene.unique()
    if not things:
        return None
    thing = rng.choice(things)
    return Question("where", f"Where is the {thing.name}?", CELLS[thing.cell])


def at(scene: Scene, rng: Random) -> Question | None:
    """The thing in a place."""
    thing = rng.choice(scene.things)
    return Question("at", f"What is in the {CELLS[thing.cell]}?", thing.name)


def word(scene: Scene, rng: Random) -> Question | None:
    """The word under a thing, or in a place."""
    return _read(scene, rng, str.isalpha)


def number(scene: Scene, rng: Random) -> Question | None:
    """The number under a thing, or in a place."""
    return _read(scene, rng, str.isdigit)


def _read(scene: Scene, rng: Random, kind: Callable[[str], bool]) -> Question | None:
    things = [thing for thing in scene.things if kind(thing.text)]
    return reading(scene, rng, rng.choice(things)) if things else None


def reading(scene: Scene, rng: Random, thing: Thing) -> Question:
    """What is written under `thing`, which is named by its class where that is unique, or by its place."""
    kind = "word" if thing.text.isalpha() else "number"
    by_name = len(scene.named(thing.name)) == 1 and rng.random() < 0.6
    place = f"under the {thing.name}" if by_name else f"in the {CELLS[thing.cell]}"
    return Question(kind, f"What {kind} is {place}?", thing.text)


def word_yes_no_question(asked: str, truth: bool) -> Question:
    """Is this word written there?"""
    return Question("word y/n", f'Is the word "{asked}" in the image?', _yes(truth))


def word_yes_no(scene: Scene, rng: Random) -> Question | None:
    """A word of the scene, or any other."""
    words = [thing.text for thing in scene.things if thing.text.isalpha()]
    if not words:
        return None
    if rng.random() < 0.5:
        return word_yes_no_question(rng.choice(words), True)
    return word_yes_no_question(rng.choice([other for other in WORDS if other not in words]), False)


def color_yes_no_question(thing: Thing, by_shape: bool, asked: str) -> Question:
    """Does the thing, named by its shape or its place, have this colour?"""
    subject = thing.shape if by_shape else f"object in the {CELLS[thing.cell]}"
    return Question("color y/n", f"Is the {subject} {asked}?", _yes(asked == thing.color))


def color_yes_no(scene: Scene, rng: Random) -> Question | None:
    """The true colour, or another one, half of the time one that is in the scene."""
    lone = _lone(scene, "shape")
    by_shape = bool(lone) and rng.random() < 0.5
    thing = rng.choice(lone if by_shape else scene.things)
    if rng.random() < 0.5:
        return color_yes_no_question(thing, by_shape, thing.color)
    present = sorted({other.color for other in scene.things} - {thing.color})
    others = present if present and rng.random() < 0.5 else [other for other in COLORS if other != thing.color]
    return color_yes_no_question(thing, by_shape, rng.choice(others))


def sides(thing: Thing) -> list[str]:
    """The sides of the image that a thing is on; none for the centre."""
    return [["left"], [], ["right"]][thing.column] + [["above"], [], ["below"]][thing.row]


def side_question(thing: Thing, side: str) -> Question:
    """Is the thing on this side of the image?"""
    return Question("position y/n", f"Is the {thing.name} {SIDES[side]} of the image?", _yes(side in sides(thing)))


def relative(thing: Thing, other: Thing) -> list[str]:
    """The directions in which `thing` lies, seen from `other`."""
    right, down = thing.column - other.column, thing.row - other.row
    return ["right"] * (right > 0) + ["left"] * (right < 0) + ["below"] * (down > 0) + ["above"] * (down < 0)


def relative_question(thing: Thing, other: Thing, direction: str) -> Question:
    """Does `thing` lie in this direction, seen from `other`?"""
    return Question(
        "position y/n",
        f"Is the {thing.name} {DIRECTIONS[direction]} the {other.name}?",
        _yes(direction in relative(thing, other)),
    )


def position_yes_no(scene: Scene, rng: Random) -> Question | None:
    """The side of the image that a thing is on, or of another thing; false ones name the opposite."""
    things = scene.unique()
    if rng.random() < 0.5:
        pairs = [(thing, side) for thing in things for side in sides(thing)]
        if not pairs:
            return None
        thing, side = rng.choice(pairs)
        return side_question(thing, side if rng.random() < 0.5 else OPPOSITE[side])
    if len(things) < 2:
        return None
    thing, other = rng.sample(things, 2)
    direction = rng.choice(relative(thing, other))
    return relative_question(thing, other, direction if rng.random() < 0.5 else OPPOSITE[direction])


def opposite(question: Question) -> Question:
    """A `position y/n` question with its direction turned round, and so its answer."""
    for phrases in (SIDES, DIRECTIONS):
        for direction, phrase in phrases.items():
            if f" {phrase} " in question.text:
                turned = question.text.replace(phrase, phrases[OPPOSITE[direction]])
                return Question(question.kind, turned, _yes(question.answer == "no"))
    raise ValueError(f"not a question about a position: {question.text}")


def multiple_choice(scene: Scene, rng: Random) -> Question | None:
    """A question of another kind with three or four options; the answer is the letter of the right one."""
    kind = rng.choice(("color", "shape", "where", "count", "word", "number"))
    asked = KINDS[kind](scene, rng)
    if asked is None:
        return None
    size = 3 if kind in ("word", "number") else rng.choice((3, 4))
    if kind in ("word", "number"):
        alike = str.isalpha if kind == "word" else str.isdigit
        here = [thing.text for thing in scene.things if alike(thing.text) and thing.text != asked.answer]
        wrong = rng.sample(here, min(len(here), rng.randrange(3)))
        if kind == "word":
            wrong += rng.sample([other for other in WORDS if other != asked.answer and other not in here], 2 - len(wrong))
        while len(wrong) < 2:
            other = str(rng.randrange(10, 10 ** len(asked.answer)))
            wrong += [other] if other != asked.answer and other not in here + wrong else []
    else:
        pool = {"color": COLORS, "shape": SHAPES, "where": CELLS, "count": tuple("012345")}[kind]
        wrong = rng.sample([other for other in pool if other != asked.answer], size - 1)
    choices = [*wrong, asked.answer]
    rng.shuffle(choices)
    letter = "ABCD"[choices.index(asked.answer)]
    return Question("multiple choice", asked.text, letter, tuple(choices), HINT if rng.random() < 0.25 else "")


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


KINDS: dict[str, Callable[[Scene, Random], Question | None]] = {
    "exist": exist,
    "count": count,
    "count y/n": count_yes_no,
    "color": color,
    "color y/n": color_yes_no,
    "shape": shape,
    "relation": relation,
    "where": where,
    "at": at,
    "word": word,
    "number": number,
    "word y/n": word_yes_no,
    "position y/n": position_yes_no,
    "multiple choice": multiple_choice,
}
"""Every kind of question, by name."""


def ask(scene: Scene, rng: Random, kinds: list[str]) -> list[Question]:
    """One question of each kind in `kinds`; where the scene has none of a kind, `exist` or `color` stands in."""
    asked = []
    for kind in kinds:
        question = KINDS[kind](scene, rng)
        while question is None:
            question = KINDS[rng.choice(("exist", "color"))](scene, rng)
        asked.append(question)
    return asked
