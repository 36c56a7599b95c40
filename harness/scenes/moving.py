"""Scenes in which things move: six lanes of a 96×96 picture, side by side or one above the other, at most one thing in each.

A thing stays, moves along its lane at an even pace, or is there in the first or in the second half of the frames alone. Scenes
are pure functions of their seeds.
"""

from dataclasses import dataclass
from random import Random

import numpy as np

from harness.scenes import draw
from harness.scenes.world import COLORS, SHAPES

FRAMES, FPS = 8, 4
LANES, SIDE = 6, 16
LEAST_WAY = 32  # pixels that what moves moves at least
DIRECTIONS = ("to the right", "to the left", "down", "up")
STAYS = "it does not move"


@dataclass(frozen=True)
class Mover:
    """A coloured shape in a lane; `begin` and `end` are the pixels along it where its block of 16×16 is first and last."""

    color: str
    shape: str
    lane: int
    begin: int
    end: int
    frames: range

    @property
    def name(self) -> str:
        """Its class, which no other thing of the scene is of."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class MovingScene:
    """A seed, whether lanes lie one above the other, and the things in them."""

    seed: int
    level: bool
    things: tuple[Mover, ...]

    def direction(self, thing: Mover) -> str:
        """One of `DIRECTIONS`, or `STAYS`."""
        if thing.begin == thing.end:
            return STAYS
        return DIRECTIONS[(thing.end < thing.begin) + 2 * (not self.level)]


def sample(seed: int) -> MovingScene:
    """The scene of a seed: four or five things, each of a class of its own; one to four move, and one may come or go."""
    rng = Random(seed)
    count = rng.randint(4, 5)
    lanes = rng.sample(range(LANES), count)
    names = rng.sample([(color, shape) for color in COLORS for shape in SHAPES], count)
    moving = rng.randint(1, count - 1)
    whole = range(FRAMES)
    things = []
    for number, (lane, (color, shape)) in enumerate(zip(lanes, names, strict=True)):
        begin = end = SIDE * rng.randrange(LANES)
        while number < moving and abs(end - begin) < LEAST_WAY:
            begin, end = (rng.randrange(draw.SIZE - SIDE + 1) for _ in range(2))
        frames = whole
        if number == count - 1 and rng.random() < 0.7:
            frames = rng.choice((whole[: FRAMES // 2], whole[FRAMES // 2 :]))
        things.append(Mover(color, shape, lane, begin, end, frames))
    return MovingScene(seed, rng.random() < 0.5, tuple(things))


def frames(scene: MovingScene) -> np.ndarray:
    """uint8 (8, 96, 96, 3)."""
    rng = Random(scene.seed * 2 + 1)
    made = np.repeat(draw.background(rng)[None], FRAMES, 0)
    for thing in scene.things:
        mask = draw.outline(thing.shape, 7.0, 0, 0)
        for frame in thing.frames:
            along = thing.begin + round((thing.end - thing.begin) * frame / (FRAMES - 1))
            top, left = (thing.lane * SIDE, along) if scene.level else (along, thing.lane * SIDE)
            made[frame, top : top + SIDE, left : left + SIDE][mask] = draw.RGB[thing.color]
    return made
