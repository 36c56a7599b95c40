"""Sequences that have become shorter: gathering rows, and the mask of what is left."""

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function

from fitprune.models.parts import Anatomy


def take(values: torch.Tensor, rows: torch.Tensor, batch: int | None = None) -> torch.Tensor:
    """Gather `rows` (batch, T') along the second-last axis of (…, batch, T, d); a batch axis of 1 is expanded."""
    if batch is not None and values.shape[-3] != batch:
        values = values.expand(*values.shape[:-3], batch, *values.shape[-2:])
    # Whole rows are copied; a gather would index every element.
    samples = torch.arange(len(rows), device=rows.device)[:, None]
    return values[..., samples, rows, :]


def causal_mask(
    parts: Anatomy, valid: torch.Tensor | None, batch: int, queries: int, keys: int, hidden: torch.Tensor
) -> torch.Tensor | None:
    """The causal mask of the last `queries` of `keys` tokens, in the form that the model's attention takes."""
    config = parts.decoder.config
    return ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation](
        batch_size=batch,
        q_length=queries,
        kv_length=keys,
        q_offset=keys - queries,
        kv_offset=0,
        mask_function=causal_mask_function,
        attention_mask=valid,
        allow_is_causal_skip=True,
        dtype=hidden.dtype,
        config=config,
        device=hidden.device,
    )
