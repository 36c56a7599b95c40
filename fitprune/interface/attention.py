"""The attention of one decoder layer as a pruner sees it: queries and keys, and what methods ask of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fitprune.engine.undo import beside
from fitprune.errors import UnsupportedModel
from fitprune.scoring.column_sums import head_max_columns
from fitprune.scoring.rows import last_row_mean, row_maps, rows_mean

if TYPE_CHECKING:
    from fitprune.interface.tokens import VisualTokens


@dataclass
class Attention:
    """The attention of one layer in a prefill: queries and keys, rotary embedding applied.

    Attributes:
        query: (batch, heads, T, d), or (batch, heads, 1, d) of each sample's last token where it was computed ahead
            (`VisualTokens.upcoming`); key: (batch, kv_heads, T, d).
        scaling: factor on the logits.
        macs: multiply-accumulates spent on scoring so far.
    """

    query: torch.Tensor
    key: torch.Tensor
    scaling: float
    macs: int = 0

    def head_max_columns(self, tokens: "VisualTokens", row_weights: torch.Tensor) -> torch.Tensor:
        """`scoring.column_sums.head_max_columns` at the visual tokens' columns: (batch, R, n), 0 in padding places."""
        sums, macs = head_max_columns(self.query, self.key, row_weights, self.scaling, tokens.valid, first_row=tokens.first_row)
        self.macs += macs
        return torch.stack([tokens.columns(sums[:, r]) for r in range(sums.shape[1])], 1)

    def last_token_mean(self, tokens: "VisualTokens") -> torch.Tensor:
        """Head-mean attention that each sample's last token pays to its visual tokens: (batch, n)."""
        row, macs = last_row_mean(self.query, self.key, tokens.last_row(), self.scaling, tokens.valid)
        self.macs += macs
        return tokens.columns(row)

    def row_mean(self, tokens: "VisualTokens", rows: torch.Tensor) -> torch.Tensor:
        """Attention that the rows marked in `rows`, bool (batch, T), pay to each visual token, averaged over heads and over
        these rows: (batch, n), 0 in padding places and in samples without a row."""
        mean, macs = rows_mean(self.query, self.key, rows, self.scaling, tokens.valid)
        self.macs += macs
        return tokens.columns(mean)

    def row_columns(self, tokens: "VisualTokens", rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of every head that the rows marked in `rows`, bool (batch, T), pay to each visual token.

        Returns:
            (batch, heads, R, n), 0 in padding places; and which rows the R are, LongTensor (batch, R), padded with -1, where
            the attention means nothing.
        """
        maps, places, macs = row_maps(self.query, self.key, rows, self.scaling, tokens.valid)
        self.macs += macs
        columns = tokens.position.clamp(min=0)[:, None, None].expand(*maps.shape[:3], -1)
        return maps.gather(3, columns).masked_fill(~tokens.present[:, None, None], 0), places


def attention_ahead(
    layer: Any, hidden: torch.Tensor, rows: torch.Tensor, embeddings: tuple[torch.Tensor, torch.Tensor]
) -> Attention:
    """Queries of one row per sample, and all keys, of a decoder layer that has not run yet.

    Args:
        layer: the decoder layer, of one of `anatomy.PRE_NORM_LAYERS`.
        hidden: (batch, T, hidden_size), its input.
        rows: (batch,) the row of each sample's query.
        embeddings: cosine and sine, (1 or batch, T, d).

    Returns:
        `query` of (batch, heads, 1, d); `macs` does not hold the projections.

    Raises:
        UnsupportedModel: attention without a rotary embedding of the usual form.
    """
    attention = layer.self_attn
    rotate = beside(attention, "apply_rotary_pos_emb")
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
