"""Rotary embeddings: vectors turned by a token's position, and keys turned back to a prompt that begins at position 0."""

import torch
from transformers.models.llama.modeling_llama import rotate_half

from baselines.shared.padded import rows_at
from fitprune.interface.tokens import VisualTokens


def embeddings_of(tokens: VisualTokens) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the rotary embedding of all tokens present, two float tensors (batch, T, d)."""
    assert tokens.embeddings is not None
    batch = len(tokens.hidden)
    cosine, sine = (part.float().expand(batch, -1, -1) for part in tokens.embeddings)
    return cosine, sine


def ones_under_rotation(cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Vectors of ones (batch, T, d), rotated by the given cosines and sines (batch, T, d)."""
    ones = torch.ones_like(cosine)
    return ones * cosine + rotate_half(ones) * sine


def keys_from_zero(key: torch.Tensor, tokens: VisualTokens) -> torch.Tensor:
    """Rotated keys as they are where the first real token of each sample has position id 0.

    A left-padded batch may count its padding in the position ids. Every key is turned back here by the position of its
    sample's first real token, so it equals that of the sample alone. A key is unchanged, to the bit, where that position is 0.

    Args:
        key: (batch, kv_heads, T, d), rotary embedding applied.

    Returns:
        float (batch, kv_heads, T, d).
    """
    assert tokens.embeddings is not None
    # Qwen2.5-VL's embeddings have three axes in front; they agree at a prompt's first token.
    cosine, sine = (part[0] if part.ndim == 4 else part for part in tokens.embeddings)
    batch, length = tokens.hidden.shape[:2]
    first = key.new_zeros(batch, 1, dtype=torch.long) if tokens.valid is None else tokens.valid.byte().argmax(1, keepdim=True)
    cosine, sine = (rows_at(part.float().expand(batch, length, -1), first)[:, None] for part in (cosine, sine))
    # Some rotary embeddings are scaled (YaRN): the angle alone counts.
    scale = torch.hypot(cosine, sine)
    return key.float() * (cosine / scale) - rotate_half(key.float()) * (sine / scale)
