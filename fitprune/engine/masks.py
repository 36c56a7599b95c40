"""The attention mask of a sequence that has become shorter, and with what a method adds to the logits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionMaskInterface
from transformers.masking_utils import create_causal_mask, sdpa_mask

from fitprune.errors import UnsupportedModel
from fitprune.interface.bias import AttentionBias
from fitprune.interface.layout import Layout
from fitprune.models.parts import ModelParts
from fitprune.models.releases import has_mask_function

# Attention that takes any mask.
MASKED = ("sdpa", "eager")


def causal_mask(
    parts: ModelParts,
    hidden: torch.Tensor,
    valid: torch.Tensor | None,
    cache: Any = None,
    layer: int | None = None,
    together: torch.Tensor | None = None,
) -> Any:
    """The causal mask of the tokens in `hidden`, in the form that the model's attention takes; None where it needs none.

    Args:
        parts: of the model, whose configuration names the attention.
        hidden: (batch, T, hidden_size).
        valid: bool (batch, tokens in the cache + T), False for padding; None where all tokens are real.
        cache: the KV cache; None for a prompt, which sees itself alone.
        layer: the layer of the cache that counts. After pruning, layers hold different numbers of tokens.
        together: LongTensor (batch, T): rows of the same number see one another in both directions, those of 0 do not; None
            where none do.

    Raises:
        UnsupportedModel: padding must be masked, and the attention takes no mask; or it takes only causal ones.
    """
    config = parts.decoder.config
    if valid is not None and not has_mask_function(config._attn_implementation):
        raise UnsupportedModel(
            f"the attention '{config._attn_implementation}' has no mask function, so a padded batch cannot be pruned; register "
            "one with transformers' AttentionMaskInterface, or give the prompts one by one."
        )
    if together is not None:
        if config._attn_implementation not in MASKED:
            raise UnsupportedModel(
                "the tokens of an image see one another in both directions in this model, which "
                f"'{config._attn_implementation}' does not take; load the model with attn_implementation='sdpa' or 'eager'."
            )
        both = _both_ways(together)
        return create_causal_mask(config, hidden, valid, None, or_mask_function=both, allow_is_causal_skip=False)
    if valid is not None and (layer is None or hidden.shape[1] == 1) and _plain_sdpa(config):
        # What transformers makes of it in eleven operations, once per layer.
        seen = valid[:, None, None]
        if layer is not None:
            return seen
        return seen.expand(-1, -1, valid.shape[1], -1).tril()
    # The fourth argument goes by position: its name differs between transformers releases.
    # Whether anything is padding is known, so that the mask itself need not be read from the device to find out.
    return create_causal_mask(config, hidden, valid, cache, layer_idx=layer, allow_is_causal_skip=valid is None)


def _both_ways(together: torch.Tensor) -> Callable[..., torch.Tensor]:
    """What lets rows of the same number see one another, in the form that transformers takes."""

    def seen(sample: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (together[sample, query] == together[sample, key]) & (together[sample, query] > 0)

    return seen


def require_numbers(parts: ModelParts) -> None:
    """Raise UnsupportedModel unless the model's attention takes a mask of numbers, which are added to its logits."""
    attention = parts.decoder.config._attn_implementation
    if attention not in MASKED:
        raise UnsupportedModel(
            f"this method adds to the logits of attention, which '{attention}' does not take; load the model with "
            "attn_implementation='sdpa' or 'eager'."
        )


def biased_mask(parts: ModelParts, mask: Any, bias: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask of `causal_mask`'s with `bias` (batch, queries, keys): float (batch, 1, queries, keys) of the type `dtype`."""
    require_numbers(parts)
    bias = bias[:, None].to(dtype)
    queries, keys = bias.shape[2:]
    if mask is None and queries == 1:
        return bias
    if mask is None:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=bias.device).tril(keys - queries)
    allowed = mask if mask.dtype == torch.bool else mask == 0
    return torch.where(allowed, bias, torch.finfo(dtype).min)


@dataclass(frozen=True)
class Biased:
    """A bias in a layout.

    Attributes:
        given: what the method gave.
        layout: the tokens present.
        rows: its `keys` by row, (batch, T), as a mask of one query: 0 for text, and the least number for padding.
        mask: the layer's mask with it.
    """

    given: AttentionBias
    layout: Layout
    rows: torch.Tensor
    mask: torch.Tensor

    def of(self, bias: AttentionBias, layout: Layout) -> bool:
        """Whether this is that bias, in that layout."""
        return self.layout is layout and self.given.keys is bias.keys and self.given.pairs is bias.pairs


def biased(parts: ModelParts, bias: AttentionBias | None, layout: Layout, mask: Any, dtype: torch.dtype) -> Biased | None:
    """The `bias` of a prefill's attention in `layout`, whose mask is `mask` without it; None for none."""
    if bias is None:
        return None
    rows = layout.spread(bias.keys).to(dtype)
    rows = rows if layout.valid is None else rows.masked_fill(~layout.valid, torch.finfo(dtype).min)
    both = rows[:, None].expand(-1, rows.shape[1], -1)
    both = both if bias.pairs is None else both + bias.pairs
    return Biased(bias, layout, rows, biased_mask(parts, mask, both, dtype))


def _plain_sdpa(config: Any) -> bool:
    """Whether the attention is torch's SDPA, causal, with the masks that transformers makes for it."""
    attention = config._attn_implementation
    return attention == "sdpa" and getattr(config, "is_causal", True) and AttentionMaskInterface()[attention] is sdpa_mask


def replaced_mask(like: torch.Tensor) -> torch.Tensor:
    """An empty mask for the batch of `like` (batch, …): a decoder passes on a 4-D mask as it is, and makes none of its own."""
    return like.new_zeros(len(like), 1, 0, 0, dtype=torch.bool)
