"""The world that the embedded model sees: small crowded scenes, each one a pure function of its seed.

A scene has a 3×3 layout of cells. A cell holds at most one thing (a coloured shape), and a thing may have a word or a
number written under it. Things come from themes, so that some classes (colour + shape) are frequent and some appear
together; the rest of the mass is uniform, so that every class is met.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from random import Random

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "brown")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star", "ring", "moon")
CELLS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
_WORDS = """
ant ape arm art axe bag bat bed bee box bus cab cap cat cow cup dog ear egg elf fan fig fox gem gum hat hen ice ink
jam jar jet key kid leg lip log map mud net nut oak oil owl pan pen pig pot rug sea ski sky sun tea toy van wax web
yak zoo arch baby ball band bank barn bear bell bird boat bone book boot bowl bush cake card cave city clay coat coin
corn crab crow deer desk dish door drum duck dust fire fish flag fork frog gate gift goat gold hand harp hawk hill
home hook horn iron jazz kite king lake lamp leaf lion lock milk mint moss moth nail nest nose palm park pear pond
quiz rain road rock roof rope rose salt sand seed ship shoe silk snow sock soup surf swan tent tree vase vine wall
wave wing wolf wood yard
"""
WORDS = tuple(_WORDS.split())

TRAIN_SEEDS = range(0, 1_000_000_000)
"""Seeds of training scenes; the other ranges below are disjoint from it and from each other."""
HELD_OUT_SEEDS = range(1_000_000_000, 1_100_000_000)
CALIBRATION_SEEDS = range(1_100_000_000, 1_200_000_000)
STATISTICS_SEEDS = range(1_200_000_000, 1_300_000_000)
SUITE_SEEDS = range(2_000_000_000, 3_000_000_000)

ALL_CLASSES = tuple((color, shape) for color in COLORS for shape in SHAPES)
THEME_SIZE = 9
THEME_WEIGHTS = (6, 5, 4, 3, 2, 2, 1, 1)
TEXT_SHARE, WORD_SHARE = 0.6, 0.6
FROM_THEME, LIKE_ANOTHER = 0.45, 0.25


@dataclass(frozen=True)
class Thing:
    """One coloured shape in a cell (0–8, row by row), `text` (up to 4 characters, may be empty) under it."""

    color: str
    shape: str
    large: bool
    cell: int
    text: str

    @property
    def name(self) -> str:
        """Its class, e.g. `red circle`."""
        return f"{self.color} {self.shape}"

    @property
    def row(self) -> int:
        """0 top, 1 middle, 2 bottom."""
        return self.cell // 3

    @property
    def column(self) -> int:
        """0 left, 1 middle, 2 right."""
        return self.cell % 3


@dataclass(frozen=True)
class Scene:
    """A seed and the things in the scene, ordered by cell."""

    seed: int
    things: tuple[Thing, ...]

    def named(self, name: str) -> list[Thing]:
        """The things of one class, e.g. `red circle`."""
        return [thing for thing in self.things if thing.name == name]

    def unique(self) -> list[Thing]:
        """The things whose class appears once, so that naming the class refers to them."""
        counts = Counter(thing.name for thing in self.things)
        return [thing for thing in self.things if counts[thing.name] == 1]


@lru_cache(maxsize=1)
def themes() -> tuple[tuple[tuple[str, str], ...], ...]:
    """The classes of each theme, the most typical first."""
    rng = Random(7)
    return tuple(tuple(rng.sample(ALL_CLASSES, THEME_SIZE)) for _ in THEME_WEIGHTS)


def sample(seed: int, least: int = 4, most: int = 8) -> Scene:
    """The scene of a seed, with `least` to `most` things."""
    rng = Random(seed)
    theme = rng.choices(themes(), THEME_WEIGHTS)[0]
    cells = rng.sample(range(9), rng.randint(least, most))
    things: list[Thing] = []
    for cell in cells:
        draw = rng.random()
        if draw < FROM_THEME:
            color, shape = theme[min(rng.randrange(THEME_SIZE), rng.randrange(THEME_SIZE))]
        else:
            color, shape = rng.choice(COLORS), rng.choice(SHAPES)
            if things and draw > 1 - LIKE_ANOTHER:
                other = rng.choice(things)
                color, shape = (other.color, shape) if rng.random() < 0.5 else (color, other.shape)
        text = ""
        if rng.random() < TEXT_SHARE:
            taken = {thing.text for thing in things}
            while not text or text in taken:
                text = rng.choice(WORDS) if rng.random() < WORD_SHARE else str(rng.randrange(10, 10 ** rng.randint(2, 4)))
        things.append(Thing(color, shape, rng.random() < 0.5, cell, text))
    return Scene(seed, tuple(sorted(things, key=lambda thing: thing.cell)))
