"""What the families' models and processors have in common: stock transformers configurations of small dimensions."""

from __future__ import annotations

from typing import Any

from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from harness.scenes.draw import GRID, PATCH, SIZE
from training.tokenizer import build

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
IMAGES: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "do_center_crop": False,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_convert_rgb": True,
}
"""Settings of the image processors of LLaVA and LLaVA-NeXT."""


def llava_settings(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> dict[str, Any]:
    """What the configurations of LLaVA and LLaVA-NeXT have in common."""
    return {
        "vision_config": vision_config(width),
        "text_config": text_config(tokenizer, width, layers),
        "image_token_index": tokenizer.get_vocab()["<image>"],
        "projector_hidden_act": "gelu",
        "vision_feature_select_strategy": "default",
        "vision_feature_layer": -2,
        "image_seq_length": GRID * GRID,
        "tie_word_embeddings": False,
    }


def processor_settings() -> dict[str, Any]:
    """What the processors of LLaVA and LLaVA-NeXT have in common."""
    return {
        "tokenizer": build(),
        "patch_size": PATCH,
        "vision_feature_select_strategy": "default",
        "chat_template": CHAT_TEMPLATE,
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
    }


def vision_config(width: int) -> CLIPVisionConfig:
    """The tower: 12×12 patches and [CLS] of a 96×96 view."""
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        projection_dim=width,
        num_hidden_layers=4,
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
