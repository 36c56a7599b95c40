"""SmolVLM2: tiles, whose numbers stand between them as text, and the whole image; nine or sixteen patches to a token.

Source: Marafioti et al. 2025, arXiv 2504.05299.
"""

import math
from collections.abc import Mapping
from typing import Any

from harness.models.families.templates import SMOLVLM
from harness.models.spec import Family, FamilyName, ModelSpec, View

# Tiles along an image's longer side, as the published image processors have it.
LONGER_SIDE = 4


def view(config: Mapping[str, Any], width: int, height: int) -> View:
    """Four tiles along the longer side, as many along the other as its scaled length begins, and the whole image in one."""
    side = config["vision_config"]["image_size"]
    ratio = width / height
    shorter = int(LONGER_SIDE * side / ratio if ratio >= 1 else LONGER_SIDE * side * ratio)
    # The processor rounds it up to an even number.
    across = max(1, math.ceil((shorter + shorter % 2) / side))
    tiles = LONGER_SIDE * across + 1
    return View(tiles * _tokens(config), (1, tiles, 3, side, side))


def _tokens(config: Mapping[str, Any]) -> int:
    """Visual tokens of a tile."""
    vision = config["vision_config"]
    return (vision["image_size"] // vision["patch_size"]) ** 2 // config["scale_factor"] ** 2


def processor(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"image_seq_len": _tokens(config)}


FAMILY = Family("smolvlm", SMOLVLM, view=view, processor=processor, nested=True)

NAME = FamilyName("smolvlm2", standard="smolvlm2-2.2b")

MODELS = (
    ModelSpec(
        "smolvlm2-500m",
        "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        revision="7b375e1b73b11138ff12fe22c8f2822d8fe03467",
        dtype="float32",
        parameters=507_482_304,
    ),
    ModelSpec(
        "smolvlm2-2.2b",
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        revision="482adb537c021c86670beed01cd58990d01e72e4",
        dtype="float32",
        parameters=2_246_784_880,
    ),
)
