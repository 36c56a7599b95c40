"""LLaVA-OneVision: a SigLIP tower, up to 36 tiles, their features resampled to at most nine tiles' worth.

Source: Li et al. 2024, arXiv 2408.03326; checkpoints of llava-hf.
"""

import math
from collections.abc import Mapping
from typing import Any

from harness.models.families.anyres import best_resolution, unpadded
from harness.models.families.templates import chatml
from harness.models.spec import Family, FamilyName, ModelSpec, View


def view(config: Mapping[str, Any], width: int, height: int) -> View:
    """Base tokens, and for the tiles the unpadded grid, resampled where it is too large, with one newline token a row."""
    side, patch = config["vision_config"]["image_size"], config["vision_config"]["patch_size"]
    grid = side // patch
    tall, wide = best_resolution(width, height, [(tall, wide) for tall, wide in config["image_grid_pinpoints"]])
    columns, rows = unpadded(width, height, grid * (wide // side), grid * (tall // side))
    most = int(config["vision_aspect_ratio"].removeprefix("anyres_max_"))
    shrink = math.sqrt(columns * rows / (most * grid**2))
    if shrink > 1.1:
        columns, rows = int(columns // shrink), int(rows // shrink)
    tiles = 1 + (wide // side) * (tall // side)
    return View(grid**2 + columns * rows, (1, tiles, 3, side, side), rows, {"image_sizes": [[height, width]]})


def processor(config: Mapping[str, Any]) -> Mapping[str, Any]:
    vision = config["vision_config"]
    return {
        "num_image_tokens": (vision["image_size"] // vision["patch_size"]) ** 2,
        "vision_feature_select_strategy": config.get("vision_feature_select_strategy", "full"),
        "vision_aspect_ratio": config.get("vision_aspect_ratio", "anyres_max_9"),
    }


FAMILY = Family("llava_onevision", chatml("<image>\n"), view=view, processor=processor)

NAME = FamilyName("llava-onevision", standard="llava-onevision-7b")

MODELS = (
    ModelSpec(
        "llava-onevision-0.5b",
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        revision="74dd0bf867a4cda7950c17663794267c60cf4b40",
        parameters=893_675_552,
    ),
    ModelSpec(
        "llava-onevision-7b",
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        revision="0d50680527681998e456c7b78950205bedd8a068",
        parameters=8_030_807_584,
    ),
)
