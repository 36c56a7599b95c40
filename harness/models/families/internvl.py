"""InternVL3 and 3.5 in transformers' own classes: up to twelve tiles and a thumbnail, pixels shuffled four to a token.

Source: Zhu et al. 2025, arXiv 2504.10479; Wang et al. 2025, arXiv 2508.18265; the checkpoints ending in -hf, which need no code
of their own.
"""

from collections.abc import Mapping
from typing import Any

from harness.models.families.templates import chatml
from harness.models.spec import Family, FamilyName, ModelSpec, View

MIN_TILES, MAX_TILES = 1, 12


def tiling(width: int, height: int, side: int) -> tuple[int, int]:
    """(columns, rows) of the grid nearest in aspect ratio; of equally near ones the largest that the image half fills."""
    grids = [
        (columns, rows)
        for columns in range(1, MAX_TILES + 1)
        for rows in range(1, MAX_TILES + 1)
        if MIN_TILES <= columns * rows <= MAX_TILES
    ]
    nearest = min(abs(width / height - columns / rows) for columns, rows in grids)
    equal = sorted((grid for grid in grids if abs(width / height - grid[0] / grid[1]) == nearest), key=lambda g: g[0] * g[1])
    filled = [grid for grid in equal if 2 * width * height > side**2 * grid[0] * grid[1]]
    return filled[-1] if filled else equal[0]


def view(config: Mapping[str, Any], width: int, height: int) -> View:
    """Tiles of the tower's size, and a thumbnail when there is more than one."""
    size = config["vision_config"]["image_size"]
    side = size if isinstance(size, int) else size[0]
    columns, rows = tiling(width, height, side)
    tiles = columns * rows + (columns * rows > 1)
    return View(tiles * config["image_seq_length"], (tiles, 3, side, side))


def processor(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"image_seq_length": config["image_seq_length"]}


FAMILY = Family("internvl", chatml("<IMG_CONTEXT>\n"), view=view, processor=processor)

NAME = FamilyName("internvl3", standard="internvl3-1b")

MODELS = (
    ModelSpec(
        "internvl3-1b",
        "OpenGVLab/InternVL3-1B-hf",
        revision="014c0583a0d4bedf29fbe2dbff4f865eb998e171",
        dtype="bfloat16",
        parameters=938_193_024,
    ),
    ModelSpec(
        "internvl3-8b",
        "OpenGVLab/InternVL3-8B-hf",
        revision="259a3b64a14623c0ec91a045cb43f7c5af5fa6af",
        dtype="bfloat16",
        parameters=7_944_373_760,
    ),
    ModelSpec(
        "internvl3.5-1b",
        "OpenGVLab/InternVL3_5-1B-HF",
        revision="9191dbccf312b537016f041b25d61c72e7c5c9f3",
        dtype="bfloat16",
        parameters=1_060_897_792,
    ),
    ModelSpec(
        "internvl3.5-8b",
        "OpenGVLab/InternVL3_5-8B-HF",
        revision="741a7d03020411e666c6109218ab71e08151ef86",
        dtype="bfloat16",
        parameters=8_528_318_464,
    ),
)
