"""LLaVA-NeXT (1.6): a base view and tiles, features of the padding cut off, a newline token after every row.

Source: llava-vl.github.io/blog/2024-01-30-llava-next; checkpoints of llava-hf.
"""

from collections.abc import Mapping
from typing import Any

from harness.models.families.anyres import best_resolution, unpadded
from harness.models.families.llava import CLIP_336, cls_tokens, processor
from harness.models.families.templates import MISTRAL, VICUNA_SYSTEM
from harness.models.spec import Family, FamilyName, ModelSpec, View, embedded


def view(config: Mapping[str, Any], width: int, height: int) -> View:
    """Base tokens, and for the tiles the unpadded grid with one newline token a row; or their whole grid, without any."""
    side, patch = config["vision_config"]["image_size"], config["vision_config"]["patch_size"]
    tall, wide = best_resolution(width, height, [(tall, wide) for tall, wide in config["image_grid_pinpoints"]])
    columns, rows = side // patch * (wide // side), side // patch * (tall // side)
    unpads = config.get("image_unpad", True)
    if unpads:
        columns, rows = unpadded(width, height, columns, rows)
    base = (side // patch) ** 2
    if config.get("vision_feature_select_strategy", "default") == "full":
        base += cls_tokens(config)
    tiles = 1 + (wide // side) * (tall // side)
    size, newlines = ([height, width], rows) if unpads else ([tall, wide], 0)
    return View(base + columns * rows, (1, tiles, 3, side, side), newlines, {"image_sizes": [size]})


FAMILY = Family("llava_next", VICUNA_SYSTEM, view=view, processor=processor)

NAME = FamilyName("llava-next", standard="llava-next-7b", embedded="llava-next-tiny")

MODELS = (
    embedded("llava-next-tiny"),
    ModelSpec(
        "llava-next-7b",
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        revision="c916e6cdcd760b4cecd1dd4907f84ac649f93b23",
        parameters=7_063_431_168,
        text_tower=CLIP_336,
    ),
    ModelSpec(
        "llava-next-mistral-7b",
        "llava-hf/llava-v1.6-mistral-7b-hf",
        revision="52320fb52229c8d942b1dcb8b63b3dc8087bc83b",
        parameters=7_566_747_648,
        text_tower=CLIP_336,
        chat_template=MISTRAL,
    ),
    ModelSpec(
        "llava-next-13b",
        "llava-hf/llava-v1.6-vicuna-13b-hf",
        revision="e66fcaaa7d502b1037c8465375bb67f4c33758dd",
        parameters=13_351_499_776,
        text_tower=CLIP_336,
    ),
)
