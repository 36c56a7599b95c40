"""What the mini suites ask about a scene, and what people would answer."""

from collections import Counter
from collections.abc import Iterator, Sized
from functools import lru_cache
from itertools import combinations
from random import Random

from harness.scenes import questions, world
from harness.scenes.questions import KINDS, Question
from harness.scenes.world import Scene

POPE_SPLITS = ("adversarial", "popular", "random")
POPE_EACH = 3
STATISTICS_SCENES = 4000


def scenes(suite: int, made: Sized, least: int) -> Iterator[tuple[Scene, Random]]:
    """The scenes of one suite, each with a generator for its questions, until at least so many rows are made of them."""
    seed = world.SUITE_SEEDS.start + suite * 10_000_000
    while len(made) < least:
        yield world.sample(seed), Random(seed * 2 + 2)
        seed += 1


def asked(scene: Scene, rng: Random, kinds: tuple[str, ...], most: int) -> list[Question]:
    """Up to `most` different questions of different kinds; fewer where the scene does not have them."""
    found = (KINDS[kind](scene, rng) for kind in rng.sample(kinds, len(kinds)))
    return [question for question in found if question is not None][:most]


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
