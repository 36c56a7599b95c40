"""Qwen2.5-VL: native resolution, windowed tower, four patches to a token, M-RoPE (Bai et al. 2025, arXiv 2502.13923)."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from harness.models.families.templates import chatml
from harness.models.spec import Family, FamilyName, ModelSpec, View

# The published image processor's bounds.
MIN_PIXELS, MAX_PIXELS = 56 * 56, 12_845_056


def native_view(config: Mapping[str, Any], width: int, height: int, fewest: int, most: int) -> View:
    """An image at its own resolution: both sides are rounded to whole tokens, after scaling into these bounds of pixels."""
    vision = config["vision_config"]
    patch, merge = vision["patch_size"], vision["spatial_merge_size"]
    unit = patch * merge
    sides = [round(side / unit) * unit for side in (height, width)]
    if math.prod(sides) > most:
        shrink = math.sqrt(height * width / most)
        sides = [max(unit, math.floor(side / shrink / unit) * unit) for side in (height, width)]
    elif math.prod(sides) < fewest:
        grow = math.sqrt(fewest / (height * width))
        sides = [math.ceil(side * grow / unit) * unit for side in (height, width)]
    rows, columns = (side // patch for side in sides)
    values = 3 * vision["temporal_patch_size"] * patch**2
    return View(rows * columns // merge**2, (rows * columns, values), extra={"image_grid_thw": [[1, rows, columns]]})


view = partial(native_view, fewest=MIN_PIXELS, most=MAX_PIXELS)

FAMILY = Family(
    "qwen2_5_vl", chatml("<|vision_start|><|image_pad|><|vision_end|>", system="You are a helpful assistant."), view=view
)

NAME = FamilyName("qwen2.5-vl", standard="qwen2.5-vl-7b")

MODELS = (
    ModelSpec(
        "qwen2.5-vl-3b",
        "Qwen/Qwen2.5-VL-3B-Instruct",
        revision="66285546d2b821cf421d4f5eb2576359d3770cd3",
        dtype="bfloat16",
        parameters=3_754_622_976,
    ),
    ModelSpec(
        "qwen2.5-vl-7b",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        revision="cc594898137f460bfe9f0759e9844b3ce807cfb5",
        dtype="bfloat16",
        parameters=8_292_166_656,
    ),
)
