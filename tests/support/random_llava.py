"""Small LLaVAs with random weights, and prompts for them, for tests of cost."""

from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

IMAGE_TOKEN = 99
TOWER = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8}
DECODER = {"hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 5, "num_attention_heads": 4}
DECODER |= {"vocab_size": 100, "max_position_embeddings": 512, "eos_token_id": None, "bos_token_id": None}

CONFIGS = {
    "clip-llama-mha": (CLIPVisionConfig, {}, LlamaConfig, {"num_key_value_heads": 4}, {}),
    "clip-llama-gqa": (CLIPVisionConfig, {}, LlamaConfig, {"num_key_value_heads": 2}, {}),
    "clip-mistral-wide-heads": (
        CLIPVisionConfig,
        {},
        MistralConfig,
        {"num_key_value_heads": 1, "head_dim": 24},
        {"vision_feature_layer": [-3, -1]},
    ),
    "siglip-qwen2": (
        SiglipVisionConfig,
        {"vision_use_head": True},
        Qwen2Config,
        {"num_key_value_heads": 2},
        {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"},
    ),
}


def build(name: str, *, attention: str = "sdpa", image_size: int = 48, **top: Any) -> LlavaForConditionalGeneration:
    """The model `name` of CONFIGS, in float32 on the CPU, always with the same weights."""
    tower_class, tower, decoder_class, decoder, options = CONFIGS[name]
    config = LlavaConfig(
        vision_config=tower_class(**TOWER | tower | {"image_size": image_size}),
        text_config=decoder_class(**DECODER | decoder),
        image_token_id=IMAGE_TOKEN,
        **{"vision_feature_layer": -2} | options | top,
    )
    torch.manual_seed(0)
    return LlavaForConditionalGeneration._from_config(config, attn_implementation=attention).eval()


def prompts(model: LlavaForConditionalGeneration, after: list[int], before: int = 3) -> dict[str, torch.Tensor]:
    """For each entry of `after`: `before` text tokens, an image, `after[i]` text tokens; left-padded to one length."""
    vision = model.config.vision_config
    visual = (vision.image_size // vision.patch_size) ** 2
    generator = torch.Generator().manual_seed(7)
    length = before + visual + max(after)
    ids = torch.zeros(len(after), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, count in enumerate(after):
        start = length - (before + visual + count)
        ids[row, start:] = torch.randint(1, IMAGE_TOKEN, (length - start,), generator=generator)
        ids[row, start + before : start + before + visual] = IMAGE_TOKEN
        mask[row, start:] = 1
    pixels = torch.randn(len(after), 3, vision.image_size, vision.image_size, generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
