"""GPU memory that a model needs, from its sizes. An estimate: what is measured stands in results."""

import math
from collections.abc import Mapping
from typing import Any

from harness.models.spec import BYTES, View

NEW_TOKENS = 128
TEXT_TOKENS = 64
# What CUDA, cuBLAS and the allocator's rounding take beside the tensors.
OVERHEAD = 0.8e9


def decoder_sizes(config: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    """(layers, hidden size, FFN size, key-value size, vocabulary) of a `config.json`'s text decoder.

    Keys that a saved LLaMA-like configuration may leave out have transformers' defaults.
    """
    text = config["text_config"]
    heads = text["num_attention_heads"]
    head = text.get("head_dim") or text["hidden_size"] // heads
    kv_size = (text.get("num_key_value_heads") or heads) * head
    return text["num_hidden_layers"], text["hidden_size"], text["intermediate_size"], kv_size, text["vocab_size"]


def gpu_bytes(config: Mapping[str, Any], parameters: int, dtype: str, view: View) -> int:
    """Bytes for one prompt of an image and 64 text tokens, and 128 generated tokens, dense.

    The sum of
        weights       parameters × bytes
        KV cache      2 × layers × key-value size × tokens × bytes
        activations   tokens × (6 × hidden size + 3 × FFN size) × bytes: residual, norm, queries, keys, values and output,
                      and the three FFN products, of the one layer that is running; of the decoder, or of the vision
                      tower over all tiles where that is more
        logits        vocabulary × 4 (of the last row, in float32)
    and 0.8 GB for CUDA itself.
    """
    layers, hidden, inner, kv_size, vocabulary = decoder_sizes(config)
    size = BYTES[dtype]
    prompt = view.tokens + view.newlines + TEXT_TOKENS
    cache = 2 * layers * kv_size * (prompt + NEW_TOKENS) * size
    activations = max(prompt * (6 * hidden + 3 * inner), _tower(config, view)) * size
    return math.ceil(parameters * size + cache + activations + 4 * vocabulary + OVERHEAD)


def _tower(config: Mapping[str, Any], view: View) -> int:
    """Numbers that one layer of a transformer tower holds over all patches; 0 where the sizes are not one tower's."""
    vision = config.get("vision_config", {})
    patch, hidden, inner = (vision.get(name) for name in ("patch_size", "hidden_size", "intermediate_size"))
    if not (patch and hidden and inner):
        return 0
    side = patch if isinstance(patch, int) else patch[0]
    patches = math.prod(view.pixels) // (3 * side**2 * vision.get("temporal_patch_size", 1))
    return patches * (6 * hidden + 3 * inner)
