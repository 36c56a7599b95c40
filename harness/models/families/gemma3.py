"""Gemma 3: a SigLIP tower at one resolution, its patches pooled sixteen to a token; five layers of six look back over a window.

Source: Kamath et al. 2025, arXiv 2503.19786. The tokens of an image see one another in both directions.
"""

from collections.abc import Mapping
from typing import Any

from harness.models.families.templates import GEMMA
from harness.models.spec import Family, FamilyName, ModelSpec, View


def view(config: Mapping[str, Any], width: int, height: int) -> View:
    """Every image is brought to the tower's one size; crops beside it (pan and scan) are switched off, as published."""
    side = config["vision_config"]["image_size"]
    return View(config["mm_tokens_per_image"], (1, 3, side, side))


def processor(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"image_seq_length": config["mm_tokens_per_image"]}


FAMILY = Family("gemma3", GEMMA, view=view, processor=processor, nested=True, token_types=True)

NAME = FamilyName("gemma-3", standard="gemma-3-4b")

MODELS = (
    ModelSpec(
        "gemma-3-4b",
        "google/gemma-3-4b-it",
        revision="093f9f388b31de276ce2de164bdc2081324b9767",
        dtype="bfloat16",
        parameters=4_300_079_472,
        notes="its licence is to be accepted on the hub first",
    ),
)
