"""A scene as a 96×96 picture, and what each of its 12×12 patches shows.

The drawing is in line with the model's 8×8 patches: a thing fills one block of 2×2 patches, a character one patch, with
jitter inside them only. Nothing depends on a font or an image library's rasteriser, so the pixels are the same everywhere.

A scene can also be drawn on a larger canvas, a whole number of times as tall and as wide. Everything grows with it but the
characters, which keep their size in pixels: they are fine print then, illegible once the picture is reduced to 96×96.
"""

from functools import cache
from random import Random

import numpy as np
from PIL import Image

from harness.scenes.world import COLORS, SHAPES, Scene, Thing

Canvas = tuple[int, int]
"""How many times 96 pixels a picture is tall and wide."""
PATCH, GRID = 8, 12
SIZE = PATCH * GRID
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
RGB = {
    "red": (214, 40, 40),
    "green": (40, 150, 60),
    "blue": (40, 70, 210),
    "yellow": (235, 200, 30),
    "purple": (140, 50, 170),
    "orange": (245, 130, 30),
    "cyan": (40, 190, 210),
    "brown": (120, 75, 40),
}
PAPERS = ((250, 248, 240), (235, 240, 250), (238, 248, 236), (250, 236, 236), (240, 236, 248), (232, 232, 232))
SHADES = (8, 16, 24)
INKS = ((20, 20, 20), (60, 30, 60), (20, 50, 60))
MARK_SHARE = 0.35
GREYS = ((150, 150, 150), (110, 110, 110))

_GLYPHS = """
3e5149453e 00427f4000 4261514946 2141454b31 1814127f10 2745454539 3c4a494930 0171090503 3649494936 064949291e
7e1111117e 7f49494936 3e41414122 7f4141221c 7f49494941 7f09090901 3e4149497a 7f0808087f 00417f4100 2040413f01
7f08142241 7f40404040 7f020c027f 7f0408107f 3e4141413e 7f09090906 3e4151215e 7f09192946 4649494931 01017f0101
3f4040403f 1f2040201f 3f4038403f 6314081463 0708700807 6151494543
"""
FONT = tuple(_GLYPHS.split())
"""5×7 capitals: five columns a character in hexadecimal, lowest bit at the top."""


@cache
def glyph(character: str) -> np.ndarray:
    """Boolean (7, 5) of one character."""
    columns = bytes.fromhex(FONT[CHARACTERS.index(character)])
    return np.array([[column >> row & 1 for column in columns] for row in range(7)], dtype=bool)


@cache
def outline(shape: str, radius: float, dx: int, dy: int) -> np.ndarray:
    """Boolean (16, 16) of one shape, its centre moved by (dx, dy) pixels."""
    y, x = np.mgrid[0:16, 0:16].astype(np.float64)
    u, v = (x - 7.5 - dx) / radius, (y - 7.5 - dy) / radius
    square = u * u + v * v
    if shape == "circle":
        return square <= 1
    if shape == "ring":
        return (square <= 1) & (square >= 0.36)
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= 0.95
    if shape == "triangle":
        return (abs(v) <= 1) & (abs(u) <= (v + 1) / 2)
    if shape == "diamond":
        return abs(u) + abs(v) <= 1.05
    if shape == "cross":
        return (np.minimum(abs(u), abs(v)) <= 0.32) & (np.maximum(abs(u), abs(v)) <= 1)
    if shape == "moon":
        return (square <= 1) & ((u - 0.55) ** 2 + v * v > 0.6)
    tips = np.minimum(abs(u), abs(v)) + 0.25 * np.maximum(abs(u), abs(v))
    return (tips <= 0.26) | ((abs(abs(u) - abs(v)) <= 0.2) & (square <= 0.9))


def _block(rng: Random, thing: Thing) -> tuple[int, int, int]:
    """Patch row and column of the thing's upper left corner, and of the first character."""
    row, column = 4 * thing.row + rng.randrange(2), 4 * thing.column + rng.randrange(3)
    return row, column, 4 * thing.column + rng.randrange(5 - len(thing.text)) if thing.text else 0


def _layout(scene: Scene) -> tuple[Random, list[tuple[Thing, int, int, int]]]:
    rng = Random(scene.seed * 2 + 1)
    return rng, [(thing, *_block(rng, thing)) for thing in scene.things]


def boxes(scene: Scene) -> dict[Thing, tuple[int, int, int, int]]:
    """Left, top, width and height, in pixels of the 96×96 picture, of the block of patches that each thing fills."""
    return {thing: (column * PATCH, row * PATCH, 2 * PATCH, 2 * PATCH) for thing, row, column, _ in _layout(scene)[1]}


def patch_labels(scene: Scene) -> dict[str, np.ndarray]:
    """What each patch shows, as int64 (12, 12) arrays where 0 is nothing.

    shape, color: of the thing in the patch; character: which one; owner_shape, owner_color: of the thing that the character
    stands under; index: which character of its text.
    """
    labels = {name: np.zeros((GRID, GRID), dtype=np.int64) for name in LABEL_SIZES}
    for thing, row, column, start in _layout(scene)[1]:
        shape, color = 1 + SHAPES.index(thing.shape), 1 + COLORS.index(thing.color)
        labels["shape"][row : row + 2, column : column + 2] = shape
        labels["color"][row : row + 2, column : column + 2] = color
        for index, character in enumerate(thing.text):
            place = row + 2, start + index
            labels["character"][place] = 1 + CHARACTERS.index(character)
            labels["owner_shape"][place], labels["owner_color"][place], labels["index"][place] = shape, color, 1 + index
    return labels


LABEL_SIZES = {"shape": 9, "color": 9, "character": 37, "owner_shape": 9, "owner_color": 9, "index": 5}


def glyph_patch(canvas: Canvas) -> Canvas:
    """Which of the tall × wide patches that one patch becomes on a canvas holds its character: row and column from 0."""
    tall, wide = canvas
    return (tall - 1) // 2, (wide - 1) // 2


def pixels(scene: Scene, canvas: Canvas = (1, 1), text: bool = True) -> np.ndarray:
    """uint8 (96 · tall, 96 · wide, 3) on a canvas (tall, wide); larger ones have a thin frame. Without its characters where
    `text` is false.
    """
    rng, layout = _layout(scene)
    picture = background(rng)
    free = np.ones((GRID, GRID), dtype=bool)
    ink = rng.choice(INKS)
    characters: list[tuple[str, int, int, int, int]] = []
    for thing, row, column, start in layout:
        slack = 1 if thing.large else 2
        mask = outline(thing.shape, 7.0 if thing.large else 5.5, rng.randint(-slack, slack), rng.randint(-slack, slack))
        picture[row * PATCH : (row + 2) * PATCH, column * PATCH : (column + 2) * PATCH][mask] = RGB[thing.color]
        free[row : row + 2, column : column + 2] = False
        if thing.text:
            down = rng.randint(0, 1)
            for index, character in enumerate(thing.text):
                characters.append((character, row + 2, start + index, down, rng.randint(1, 2)))
                free[row + 2, start + index] = False
    for row, column in np.argwhere(free).tolist():
        if rng.random() < MARK_SHARE:
            color = rng.choice(GREYS) if rng.random() < 0.6 else RGB[rng.choice(COLORS)]
            top, left = row * PATCH + rng.randint(1, 4), column * PATCH + rng.randint(1, 4)
            height, width = rng.choice(((2, 2), (1, 3), (3, 1), (1, 1)))
            picture[top : top + height, left : left + width] = color
    tall, wide = canvas
    if canvas != (1, 1):
        picture = picture.repeat(tall, axis=0).repeat(wide, axis=1)
        picture[[0, -1]] = picture[:, [0, -1]] = ink
    below, beside = glyph_patch(canvas)
    for character, row, column, down, right in characters if text else ():
        top, left = (row * tall + below) * PATCH + down, (column * wide + beside) * PATCH + right
        picture[top : top + 7, left : left + 5][glyph(character)] = ink
    return picture


def background(rng: Random) -> np.ndarray:
    """uint8 (96, 96, 3): a paper with a pattern."""
    paper = rng.choice(PAPERS)
    canvas = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
    canvas[:] = paper
    shade = rng.choice(SHADES)
    pattern, period = rng.choice(("plain", "rows", "columns", "checks", "dots")), rng.choice((4, 8))
    y, x = np.ogrid[0:SIZE, 0:SIZE]
    if pattern == "plain":
        return canvas
    if pattern == "rows":
        mask = np.broadcast_to(y // period % 2 == 1, (SIZE, SIZE))
    elif pattern == "columns":
        mask = np.broadcast_to(x // period % 2 == 1, (SIZE, SIZE))
    elif pattern == "checks":
        mask = (y // period + x // period) % 2 == 1
    else:
        mask = (y % period == 0) & (x % period == 0)
    canvas[mask] = [max(0, channel - shade) for channel in paper]
    return canvas


def image(scene: Scene, canvas: Canvas = (1, 1)) -> Image.Image:
    """The scene as an RGB picture, 96×96 pixels or `canvas` times that."""
    return Image.fromarray(pixels(scene, canvas))
