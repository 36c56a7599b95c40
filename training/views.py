"""What a model's visual tokens show of a scene, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.scenes import draw
from harness.scenes.draw import GRID, Canvas
from harness.scenes.world import Scene

NOTHING = GRID * GRID
CELL_OF_PATCH = (np.arange(GRID)[:, None] // 4 * 3 + np.arange(GRID) // 4).ravel()
"""The cell of the layout, 0–8, that each of the 144 patches of a scene lies in."""
WRITTEN = ("character", "owner_shape", "owner_color", "index")
"""The labels that a patch has because of a character in it."""
LETTERS = ("letter 1", "letter 2", "letter 3", "letter 4")
"""The labels of a thing's patches, and of its characters', that spell what is written under it."""


@dataclass(frozen=True)
class Views:
    """`patch` int64 (V,): which of a scene's 144 patches each visual token shows, or `NOTHING` for none of them; `reads`
    bool (V,): whether a character in that patch is legible there.
    """

    patch: np.ndarray
    reads: np.ndarray

    @property
    def cells(self) -> np.ndarray:
        """int64 (V,): the cell of the layout, 0–8, or -1 where a token shows nothing."""
        return np.append(CELL_OF_PATCH, -1)[self.patch]

    def labels(self, scene: Scene) -> dict[str, np.ndarray]:
        """What each token shows: `draw.patch_labels` as int64 (V,), without the characters that are illegible; and LETTERS."""
        found = {name: np.append(label.ravel(), 0)[self.patch] for name, label in draw.patch_labels(scene).items()}
        found = {name: label * self.reads if name in WRITTEN else label for name, label in found.items()}
        spelled = {name: np.zeros_like(found["shape"]) for name in LETTERS}
        for thing in scene.things if self.reads.any() else ():
            here = (self.cells == thing.cell) & (found["shape"] + found["character"] > 0)
            for letter, character in zip(LETTERS, thing.text, strict=False):
                spelled[letter][here] = 1 + draw.CHARACTERS.index(character)
        return found | spelled


def whole() -> Views:
    """One view of the whole scene, with everything legible."""
    return Views(np.arange(NOTHING), np.ones(NOTHING, dtype=bool))


def reduced(canvas: Canvas) -> Views:
    """A picture on a canvas, reduced to 96×96: characters are illegible unless it was of that size."""
    return Views(np.arange(NOTHING), np.full(NOTHING, canvas == (1, 1)))


def full(canvas: Canvas) -> Views:
    """The patches of a picture at its own resolution, row by row; a character is in one of those that one patch becomes."""
    row, column = (np.arange(GRID * scale) for scale in canvas)
    below, beside = draw.glyph_patch(canvas)
    patch = (row // canvas[0])[:, None] * GRID + column // canvas[1]
    reads = (row % canvas[0] == below)[:, None] & (column % canvas[1] == beside)
    return Views(patch.ravel(), reads.ravel())
