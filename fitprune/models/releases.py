"""What differs between transformers releases, and the check that a release is of a form that pruning knows.

What differs is found by looking at signatures and attributes, not at version numbers. What the engine relies on is checked
when a context is entered and at every prompt and decoding step (`require_known_release`, `require_arguments`): a release that
hands things on in another way is refused in one line, never pruned wrongly.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import transformers
from torch import nn
from transformers import AttentionMaskInterface, Cache, GenerationMixin

from fitprune.errors import UnsupportedModel

# The oldest and the newest release that the tests ran on; pyproject.toml declares the same range.
TESTED = ("5.19", "5.24")

_STEP = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters

# The keyword under which models take a KV cache and hand it on: "past_key_values" before transformers 5.24.
CACHE_ARGUMENT = "cache" if "cache" in _STEP else "past_key_values"


def release() -> str:
    """The transformers release at hand, and those that were tested, for a message."""
    return f"transformers {transformers.__version__} (tested: {TESTED[0]} to {TESTED[1]})"


def cache_in(arguments: Mapping[str, Any]) -> Any:
    """The KV cache among the arguments of a decoder or of one of its layers, known by its type; None where there is none."""
    return next((value for value in arguments.values() if isinstance(value, Cache)), None)


def has_mask_function(attention: str) -> bool:
    """Whether transformers builds masks for this attention implementation; for others it passes None, padding or not."""
    return attention in AttentionMaskInterface().valid_keys()


def image_result(output_class: type, images: Any, features: Any) -> dict[str, Any]:
    """What a LLaVA's output of `output_class` takes to say what became of its images.

    Args:
        output_class: a dataclass.
        images: the output of `get_image_features`, or None without images.
        features: the embeddings (images, tokens, width) of it that went into the prompt, or None.
    """
    fields = {field.name for field in dataclasses.fields(output_class)}
    return {"image_outputs": images} if "image_outputs" in fields else {"image_hidden_states": features}


def require_known_release(layers: nn.ModuleList) -> None:
    """Check, before anything runs, that decoder layers and `generate` are of a form that the engine knows.

    Raises:
        UnsupportedModel: they are not; one line with the release at hand and the tested range.
    """
    if "is_first_iteration" not in _STEP:
        raise UnsupportedModel(
            f"generate() of {release()} does not say which of its steps is the prompt; install a tested one."
        )
    missing = [name for name in ("get_seq_length", "update") if not hasattr(Cache, name)]
    if missing:
        raise UnsupportedModel(f"the KV cache of {release()} has no {' and no '.join(missing)}; install a tested release.")
    for layer in {type(layer): layer for layer in layers}.values():
        parts = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
        absent = [name for name in parts if not hasattr(layer, name)]
        taken = inspect.signature(type(layer).forward).parameters
        absent += [name for name in ("position_embeddings", CACHE_ARGUMENT) if name not in taken]
        if absent:
            raise UnsupportedModel(
                f"{type(layer).__name__} of {release()} has no {', no '.join(absent)}; it cannot be pruned. "
                "Install a tested release."
            )


def require_arguments(layer: nn.Module, arguments: Mapping[str, Any], cache: Any, expected: bool) -> None:
    """Check what a decoder layer is called with: rotary embeddings, and the decoder's own KV cache where there is one.

    Args:
        layer: the decoder layer.
        arguments: its keyword arguments.
        cache: the cache that the decoder was called with, or None.
        expected: whether caching is on, so that there must be one.

    Raises:
        UnsupportedModel: one of them does not arrive; one line with the release at hand and the tested range.
    """
    name = type(layer).__name__
    embeddings = arguments.get("position_embeddings")
    if not isinstance(embeddings, tuple) or len(embeddings) != 2:
        raise UnsupportedModel(
            f"{name} of {release()} is not given its position_embeddings by the decoder; it cannot be pruned. "
            "Install a tested release."
        )
    own = cache_in(arguments)
    if (expected and own is None) or (cache is not None and own is not cache):
        raise UnsupportedModel(
            f"{name} of {release()} is not given the KV cache although caching is on, so a decoded token would be taken for a "
            "prompt. Install a tested release, or call with use_cache=False."
        )
