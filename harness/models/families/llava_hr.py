"""LLaVA-HR: a CLIP and a ConvNeXt branch at 1024 pixels (Luo et al. 2024, arXiv 2403.03003).

The authors' checkpoints are of their own layout; `python -m harness.models.llava_hr` makes ours of them.
"""

from collections.abc import Mapping
from typing import Any

from harness.models.families.templates import VICUNA_USER_SYSTEM
from harness.models.spec import Family, FamilyName, ModelSpec, View, embedded

CONVERT = "python -m harness.models.llava_hr SOURCE TARGET"


def view(config: Mapping[str, Any], width: int, height: int) -> View:
    """The image is padded to a square; each patch of the CLIP branch, which sees it smaller, becomes one visual token."""
    vision = config["vision_config"]
    side = vision["fast_image_size"] // vision["clip_config"]["patch_size"]
    return View(side**2, (1, 3, vision["image_size"], vision["image_size"]))


FAMILY = Family("llava_hr", VICUNA_USER_SYSTEM, view=view, registers="harness.models.llava_hr")

NAME = FamilyName("llava-hr", standard="llava-hr-7b", embedded="llava-hr-tiny")

# The published parameters are those of the checkpoints, the ConvNeXts' unused heads included.
MODELS = (
    embedded("llava-hr-tiny"),
    ModelSpec(
        "llava-hr-7b",
        "favor123/llava-hr-7b-sft-1024",
        revision="62f4afeacdd3867915674a102c530fd72a2625d7",
        dtype="bfloat16",
        parameters=7_283_911_851,
        convert=CONVERT,
    ),
    ModelSpec(
        "llava-hr-x-13b",
        "favor123/llava-hr-13b-x-sft-1024",
        revision="d3ca1dee79d530cbc194ff571e390c6de5e4eb5b",
        dtype="bfloat16",
        parameters=14_245_721_451,
        convert=CONVERT,
    ),
)
