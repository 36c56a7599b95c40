"""The attention mask of a sequence that has become shorter."""

from typing import Any

import torch
from transformers.masking_utils import create_causal_mask

from fitprune.errors import UnsupportedModel
from fitprune.models.parts import ModelParts
from fitprune.models.releases import has_mask_function


def causal_mask(
    parts: ModelParts, hidden: torch.Tensor, valid: torch.Tensor | None, cache: Any = None, layer: int | None = None
) -> Any:
    """The causal mask of the tokens in `hidden`, in the form that the model's attention takes; None where it needs none.

    Args:
        parts: of the model, whose configuration names the attention.
        hidden: (batch, T, hidden_size).
        valid: bool (batch, tokens in the cache + T), False for padding; None where all tokens are real.
        cache: the KV cache; None for a prompt, which sees itself alone.
        layer: the layer of the cache that counts. After pruning, layers hold different numbers of tokens.

    Raises:
        UnsupportedModel: padding must be masked, and the attention takes no mask.
    """
    config = parts.decoder.config
    if valid is not None and not has_mask_function(config._attn_implementation):
        raise UnsupportedModel(
            f"the attention '{config._attn_implementation}' has no mask function, so a padded batch cannot be pruned; register "
            "one with transformers' AttentionMaskInterface, or give the prompts one by one."
        )
    # The fourth argument goes by position: its name differs between transformers releases.
    # Whether anything is padding is known, so that the mask itself need not be read from the device to find out.
    return create_causal_mask(config, hidden, valid, cache, layer_idx=layer, allow_is_causal_skip=valid is None)


def replaced_mask(like: torch.Tensor) -> torch.Tensor:
    """An empty mask for the batch of `like` (batch, …): a decoder passes on a 4-D mask as it is, and makes none of its own."""
    return like.new_zeros(len(like), 1, 0, 0, dtype=torch.bool)
