"""LLaVA-HR's FLOPs: the analytic figure against two counters on a small model, and the published sizes by hand."""

import pytest
import torch

from tests.support.flop_checkers import TOLERANCE, fvcore_flops, torch_flops

pytest.importorskip("harness.models.llava_hr", reason="LLaVA-HR's classes are not in this tree")

from harness.cost.flops import count
from harness.cost.vision import llava_hr_macs
from harness.models.llava_hr import LlavaHrConfig, LlavaHrForConditionalGeneration
from harness.models.registry import MODELS
from harness.models.shipped import transformers_config

pytestmark = pytest.mark.releases


def build(attention="eager", **vision):
    config = LlavaHrConfig(
        vision_config={
            "image_size": 64,
            "fast_image_size": 56,
            "clip_config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "image_size": 56,
                "patch_size": 14,
            },
            "convnext_config": {"depths": [1, 2, 1, 1], "hidden_sizes": [4, 6, 8, 12]},
        }
        | vision,
        text_config={
            "model_type": "llama",
            "vocab_size": 50,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        image_token_id=49,
    )
    torch.manual_seed(0)
    return LlavaHrForConditionalGeneration._from_config(config, attn_implementation=attention).eval()


def inputs(model, images):
    ids = torch.cat([torch.full((images, 16), 49), torch.randint(1, 49, (images, 7))], 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(images, 3, 64, 64)}


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("frozen", [False, True])
def test_it_agrees_with_flop_counter_mode_in_every_part(frozen, images):
    model = build("sdpa", freeze_vision=frozen)
    sample = inputs(model, images)
    cost = count(model, sample)
    counter = torch_flops(model, **sample)
    modules = {module: sum(ops.values()) for module, ops in counter.get_flop_counts().items()}
    root = "LlavaHrForConditionalGeneration.model"
    assert cost.vision == modules[f"{root}.vision_tower"]
    assert cost.projector == modules[f"{root}.multi_modal_projector"]
    assert cost.total == pytest.approx(counter.get_total_flops(), rel=TOLERANCE)


def test_it_agrees_with_fvcore():
    model = build()
    sample = inputs(model, 2)
    # fvcore charges bilinear resizing, which is no product of matrices, 4 multiply-accumulates a value: here the small image's,
    # and the slow features' on the way to 16 tokens, three times 16 channels and once 12.
    resizing = 2 * 4 * 2 * (3 * 56**2 + 16 * (3 * 16 + 12))
    assert count(model, sample).total == pytest.approx(fvcore_flops(model, sample) - resizing, rel=TOLERANCE)


def test_the_published_slow_branches_by_hand():
    """ConvNeXt-L and -XXL at 1024 pixels: the published 34.4 and 198.1 GMACs at 224 and 256, scaled to the image's area."""
    for name, macs, side in (("llava-hr-7b", 34.4e9, 224), ("llava-hr-x-13b", 198.1e9, 256)):
        vision, _ = llava_hr_macs(transformers_config(MODELS[name]), 1)
        assert vision["convnext"] == pytest.approx(macs * (1024 / side) ** 2, rel=0.01)
