"""LLaVA-1.5: a CLIP tower, one resolution, a two-layer projector (Liu et al. 2023, arXiv 2310.03744)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.models.families.templates import VICUNA
from harness.models.spec import Family, FamilyName, ModelSpec, View, embedded

# Tokens that a tower puts before the patches.
CLS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}


def cls_tokens(config: Mapping[str, Any]) -> int:
    """1 where the tower's tokens begin with [CLS], else 0."""
    return CLS_TOKENS.get(config["vision_config"]["model_type"], 0)


def view(config: Mapping[str, Any], width: int, height: int) -> View:
    """Every image is brought to the tower's one size."""
    side = config["vision_config"]["image_size"]
    patches = (side // config["vision_config"]["patch_size"]) ** 2
    dropped = config.get("vision_feature_select_strategy", "default") == "default"
    return View(patches + cls_tokens(config) - dropped, (1, 3, side, side))


def processor(config: Mapping[str, Any]) -> Mapping[str, Any]:
    vision = config["vision_config"]
    if vision.get("model_type") not in CLS_TOKENS:
        return {}
    return {
        "patch_size": vision["patch_size"],
        "vision_feature_select_strategy": config.get("vision_feature_select_strategy", "default"),
        "num_additional_image_tokens": cls_tokens(config),
    }


FAMILY = Family("llava", VICUNA, view=view, processor=processor)

# The CLIP model that LLaVA's towers are of. LLaVA-NeXT trains its own further, but not what projects it into CLIP's space.
CLIP_336 = ("openai/clip-vit-large-patch14-336", "ce19dc912ca5cd21c8a653c79e251e808ccabcd1")

NAME = FamilyName("llava-1.5", standard="llava-1.5-7b", embedded="llava-tiny")


def _deep(name: str, seed_of: str = "") -> ModelSpec:
    """An embedded model of 24 layers, whose tower has a text tower of its own."""
    clip = Path(__file__).parents[1] / "embedded" / name / "clip"
    return embedded(name, seed_of=seed_of, text_tower=(str(clip), ""))


MODELS = (
    embedded("llava-tiny"),
    _deep("llava-deep-tiny"),
    _deep("llava-deep-tiny-b", seed_of="llava-deep-tiny"),
    _deep("llava-deep-tiny-c", seed_of="llava-deep-tiny"),
    ModelSpec(
        "llava-1.5-7b",
        "llava-hf/llava-1.5-7b-hf",
        revision="b234b804b114d9e37bb655e11cbbb5f5e971b7a9",
        parameters=7_063_427_072,
        text_tower=CLIP_336,
    ),
    ModelSpec(
        "llava-1.5-13b",
        "llava-hf/llava-1.5-13b-hf",
        revision="5dda2880bda009266dda7c4baff660b95ca64540",
        parameters=13_351_494_656,
        text_tower=CLIP_336,
    ),
)
