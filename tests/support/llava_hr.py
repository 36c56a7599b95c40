"""A small LLaVA-HR with random weights, and its prompts."""

import torch

from harness.models.llava_hr import LlavaHrConfig, LlavaHrForConditionalGeneration
from tests.support.built import built_once
from tests.support.models import PAD, randomise
from tests.support.readers import read
from tests.support.tiny_llava_hr import CLIP, CONVNEXT

IMAGE, TOKENS, SIDE = 63, 36, 64


SAMPLES = [[3, "image", 5], [1, "image", 2], [6, "image", 1, "image", 3]]
DECODERS = {"llama": {"num_key_value_heads": 4}, "mistral": {"num_key_value_heads": 2, "sliding_window": None}}


@built_once
def build(kind="llama", *, layers=3, frozen=False, attention="sdpa", seed=6):
    """36 visual tokens of 64 × 64 pixels, `layers` decoder layers with sharp attention, no end of text."""
    torch.manual_seed(seed)
    config = LlavaHrConfig(
        vision_config={
            "clip_config": CLIP | {"patch_size": 14},
            "convnext_config": CONVNEXT | {"layer_norm_eps": 1e-6, "layer_scale_init_value": 0.5, "num_stages": 4},
            "image_size": SIDE,
            "fast_image_size": 84,
            "freeze_vision": frozen,
        },
        text_config={
            "model_type": kind,
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 72,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "max_position_embeddings": 1024,
            "pad_token_id": PAD,
            "bos_token_id": 1,
            "eos_token_id": None,
            **DECODERS[kind],
        },
        image_token_id=IMAGE,
    )
    config._attn_implementation = attention
    model = LlavaHrForConditionalGeneration(config).eval()
    randomise(model)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    return read(model)


def prompt(parts, seed=0):
    """One sample as a processor gives it: counts of text tokens and "image", in the order of the prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    for part in parts:
        ids += [IMAGE] * TOKENS if part == "image" else torch.randint(2, IMAGE, (part,), generator=generator).tolist()
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    if images := parts.count("image"):
        inputs["pixel_values"] = torch.randn(images, 3, SIDE, SIDE, generator=generator)
    return inputs
