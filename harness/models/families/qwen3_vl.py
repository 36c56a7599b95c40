"""Qwen3-VL: native resolution, four patches to a token, interleaved M-RoPE, DeepStack (Bai et al. 2025, arXiv 2511.21631)."""

from functools import partial

from harness.models.families.qwen2_5_vl import native_view
from harness.models.families.templates import chatml
from harness.models.spec import Family, FamilyName, ModelSpec

# The published image processor's bounds.
MIN_PIXELS, MAX_PIXELS = 256 * 256, 4096 * 4096


view = partial(native_view, fewest=MIN_PIXELS, most=MAX_PIXELS)

FAMILY = Family("qwen3_vl", chatml("<|vision_start|><|image_pad|><|vision_end|>"), view=view)

NAME = FamilyName("qwen3-vl", standard="qwen3-vl-8b")

MODELS = (
    ModelSpec(
        "qwen3-vl-2b",
        "Qwen/Qwen3-VL-2B-Instruct",
        revision="89644892e4d85e24eaac8bacfd4f463576704203",
        dtype="bfloat16",
        parameters=2_127_532_032,
    ),
    ModelSpec(
        "qwen3-vl-4b",
        "Qwen/Qwen3-VL-4B-Instruct",
        revision="ebb281ec70b05090aa6165b016eac8ec08e71b17",
        dtype="bfloat16",
        parameters=4_437_815_808,
    ),
    ModelSpec(
        "qwen3-vl-8b",
        "Qwen/Qwen3-VL-8B-Instruct",
        revision="0c351dd01ed87e9c1b53cbc748cba10e6187ff3b",
        dtype="bfloat16",
        parameters=8_767_123_696,
    ),
)
