"""Softmax attention of chosen query rows: of each sample's last, averaged over several, or as maps of every head."""

import torch

from fitprune.scoring.macs import Macs
from fitprune.scoring.precision import in_float32


@torch.no_grad()
def last_row_mean(
    query: torch.Tensor,
    key: torch.Tensor,
    rows: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Macs]:
    """Head-mean softmax attention of one query row per sample, over all keys up to that row.

    Args:
        query: (batch, heads, T, d), or (batch, heads, 1, d) where it holds that row alone; key: (batch, kv_heads, T, d).
        rows: (batch,) the query row of each sample.
        scaling: factor on the logits.
        valid: (batch, T) bool, False for padding; None where all tokens are real.

    Returns:
        float32 (batch, T), and the multiply-accumulates of the products of queries and keys, padding left out.
    """
    if query.shape[2] > 1:
        query = query[torch.arange(len(rows), device=rows.device), :, rows][:, :, None]
    keys = len(rows) * key.shape[2] if valid is None else valid.sum()
    attention = _row_attention(query, key, rows[:, None], None, scaling, valid)
    return attention.mean((1, 2)), keys * query.shape[1] * query.shape[3]


@torch.no_grad()
def rows_mean(
    query: torch.Tensor,
    key: torch.Tensor,
    chosen: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Macs]:
    """Softmax attention of the rows marked in `chosen`, bool (batch, T), averaged over heads and over these rows.

    Only these rows are computed. Arguments and results as in `last_row_mean`; a sample without a chosen row gets zeros.
    """
    maps, rows, macs = row_maps(query, key, chosen, scaling, valid)
    counted = (rows >= 0).float()
    weights = counted / counted.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("br,brk->bk", weights, maps.mean(1)), macs


@torch.no_grad()
def row_maps(
    query: torch.Tensor,
    key: torch.Tensor,
    chosen: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, Macs]:
    """Softmax attention of the rows marked in `chosen`, bool (batch, T), of every head.

    Only these rows are computed. Arguments as in `last_row_mean`.

    Returns:
        float32 (batch, heads, R, T), R the most rows of a sample; LongTensor (batch, R), which rows they are, padded with -1,
        where the map means nothing; the multiply-accumulates of the products of queries and keys, padding left out.
    """
    count = chosen.sum(1)
    most = int(count.max())
    # Stable: chosen rows first, in order.
    rows = (~chosen).byte().argsort(dim=1, stable=True)[:, :most]
    counted = torch.arange(most, device=rows.device)[None] < count[:, None]
    query = query[torch.arange(len(rows), device=rows.device)[:, None], :, rows].transpose(1, 2)
    maps = _row_attention(query, key, rows, counted, scaling, valid)
    keys = torch.full_like(count, key.shape[2]) if valid is None else valid.sum(1)
    return maps, rows.masked_fill(~counted, -1), (keys * count).sum() * query.shape[1] * query.shape[3]


def _row_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    rows: torch.Tensor,
    counted: torch.Tensor | None,
    scaling: float,
    valid: torch.Tensor | None,
) -> torch.Tensor:
    """Attention (batch, heads, R, T) of the queries (batch, heads, R, d) of `rows` (batch, R); what is not `counted`, bool
    (batch, R), means nothing."""
    batch, heads, number, dim = query.shape
    length = key.shape[2]
    query, key = in_float32(query), in_float32(key)
    grouped = query.reshape(batch, key.shape[1], heads // key.shape[1] * number, dim)
    logits = torch.matmul(grouped, key.transpose(2, 3)).float().mul_(scaling).view(batch, heads, number, length)
    hidden = torch.arange(length, device=query.device) > rows[:, :, None]
    if valid is not None:
        hidden = hidden | ~valid[:, None]
    if counted is not None:
        hidden = hidden & counted[:, :, None]  # what does not count must not turn into NaN
    return logits.masked_fill_(hidden[:, None], float("-inf")).softmax(-1)
