"""The attention of a decoder layer that has not run yet."""

from typing import Any

import torch

from fitprune.errors import UnsupportedModel
from fitprune.interface.attention import Attention
from fitprune.models.parts import module_global


def attention_ahead(
    layer: Any, hidden: torch.Tensor, rows: torch.Tensor, embeddings: tuple[torch.Tensor, torch.Tensor]
) -> Attention:
    """Queries of one row per sample, and all keys, of a decoder layer that has not run yet.

    Args:
        layer: the decoder layer, of one of `PRE_NORM_LAYERS` (`fitprune.models.parts`).
        hidden: (batch, T, hidden_size), its input.
        rows: (batch,) the row of each sample's query.
        embeddings: cosine and sine, (1 or batch, T, d).

    Returns:
        `query` of (batch, heads, 1, d); `macs` leaves out the projections.

    Raises:
        UnsupportedModel: attention without a rotary embedding of the usual form.
    """
    attention = layer.self_attn
    rotate = module_global(attention, "apply_rotary_pos_emb")
    if rotate is None:
        raise UnsupportedModel(f"{type(attention).__name__} has no rotary embedding of a known form; it cannot be run ahead.")
    batch, length = hidden.shape[:2]
    samples = torch.arange(batch, device=hidden.device)
    normed = layer.input_layernorm(hidden)
    query = attention.q_proj(normed[samples, rows])[:, None].unflatten(-1, (-1, attention.head_dim))
    key = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim))
    if hasattr(attention, "q_norm"):  # Qwen3
        query, key = attention.q_norm(query), attention.k_norm(key)
    cosine, sine = (part.expand(batch, length, -1) for part in embeddings)
    _, key = rotate(key.transpose(1, 2), key.transpose(1, 2), cosine, sine)
    query, _ = rotate(
        query.transpose(1, 2), query.transpose(1, 2), cosine[samples, rows][:, None], sine[samples, rows][:, None]
    )
    return Attention(query, key, attention.scaling)
