"""The embedded model: stock transformers classes, small dimensions."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from harness.scenes.draw import GRID, PATCH, SIZE
from training.tokenizer import build

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def make_model(
    tokenizer: PreTrainedTokenizerFast, width: int = 128, tower_layers: int = 4, layers: int = 8
) -> LlavaForConditionalGeneration:
    """An untrained model. The last tower layer is not read by the decoder (feature layer -2), as in LLaVA-1.5."""
    config = LlavaConfig(**llava_settings(tokenizer, width, tower_layers, layers))
    model = LlavaForConditionalGeneration(config)
    model.generation_config = generation_config(tokenizer)
    embeddings = (
        model.model.vision_tower.embeddings
        if hasattr(model.model.vision_tower, "embeddings")
        else model.model.vision_tower.vision_model.embeddings
    )
    with torch.no_grad():
        embeddings.position_embedding.weight[1:] = 0.5 * sine_positions(width)
    return model


def llava_settings(tokenizer: PreTrainedTokenizerFast, width: int, tower_layers: int, layers: int) -> dict[str, Any]:
    """What the configurations of LLaVA and LLaVA-NeXT have in common."""
    return {
        "vision_config": vision_config(width, tower_layers),
        "text_config": text_config(tokenizer, width, layers),
        "image_token_index": tokenizer.get_vocab()["<image>"],
        "projector_hidden_act": "gelu",
        "vision_feature_select_strategy": "default",
        "vision_feature_layer": -2,
        "image_seq_length": GRID * GRID,
        "tie_word_embeddings": False,
    }


def vision_config(width: int, layers: int) -> CLIPVisionConfig:
    """The tower: 12×12 patches and [CLS] of a 96×96 view."""
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        hidden_act="gelu",
    )


def text_config(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> LlamaConfig:
    """The decoder."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Greedy, short answers."""
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=16,
        do_sample=False,
    )


def sine_positions(width: int) -> torch.Tensor:
    """Sines and cosines of row and column, float (144, width)."""
    frequencies = 1.0 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = torch.arange(GRID)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.cat([axis.repeat_interleave(GRID, dim=0), axis.repeat(GRID, 1)], dim=1)


def make_processor() -> LlavaProcessor:
    """The processor: pixels to [-1, 1], 144 image tokens, the chat template. It does not need torchvision."""
    tokenizer = build()
    images = CLIPImageProcessorPil(
        do_resize=True,
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        do_convert_rgb=True,
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
