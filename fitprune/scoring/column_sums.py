"""Column statistics of attention, computed in blocks of query rows: no (heads, T, T) map is ever kept."""

import functools
import importlib
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import torch

# Rows of one block: enough for an efficient matrix product, few enough that their maps stay in a core's cache, and far below
# the activations of the layer itself.
BLOCK_ROWS = 64


def head_max_columns(
    query: torch.Tensor,
    key: torch.Tensor,
    row_weights: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
    first_row: int = 0,
) -> tuple[torch.Tensor, int]:
    """Weighted sums over query rows of the head-wise maximum of causal softmax attention.

    With A[h, q, k] the softmax attention and M[q, k] = max_h A[h, q, k] (not renormalised), the result is
    out[b, r, k] = sum_q row_weights[b, r, q] · M[q, k]. Computed by the Triton kernels of `triton_column_sums` on NVIDIA cards
    from Ampere on, and by torch in blocks of rows everywhere else.

    Args:
        query: (batch, heads, T, d), rotary embedding applied.
        key: (batch, kv_heads, T, d); heads is a multiple of kv_heads.
        row_weights: (batch, R, T), float; rows before `first_row` must weigh nothing.
        scaling: factor on the logits.
        valid: (batch, T) bool, False for padding; None where all tokens are real.
        first_row: rows before it are not computed.

    Returns:
        float32 (batch, R, T), and the multiply-accumulates of its products, padding left out. The kernels compute that of
        queries and keys twice, and count it so.
    """
    if (kernels := kernels_for(query)) is not None:
        return kernels.head_max_columns(query, key, row_weights, scaling, valid, first_row)
    return head_max_columns_in_blocks(query, key, row_weights, scaling, valid, first_row)


def kernels_for(query: torch.Tensor) -> ModuleType | None:
    """The module of Triton kernels that `head_max_columns` uses for this tensor; None where torch does the work."""
    kernels = _kernels() if query.is_cuda else None
    return kernels if kernels is not None and kernels.supported(query) else None


@functools.cache
def _kernels() -> ModuleType | None:
    """The module of the Triton kernels; None without Triton, which comes with torch's CUDA builds for Linux."""
    return importlib.import_module("fitprune.scoring.triton_column_sums") if find_spec("triton") else None


def head_max_columns_in_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    row_weights: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
    first_row: int = 0,
    block_rows: int = BLOCK_ROWS,
) -> tuple[torch.Tensor, int]:
    """`head_max_columns` in torch, `block_rows` rows at a time."""
    batch, heads, length, dim = query.shape
    groups = heads // key.shape[1]
    out = torch.zeros(batch, row_weights.shape[1], length, dtype=torch.float32, device=query.device)
    future = torch.full((block_rows, block_rows), float("-inf"), device=query.device).triu(1)
    pairs: torch.Tensor | int = 0
    for start in range(first_row, length, block_rows):
        stop = min(start + block_rows, length)
        # Causality: rows before `stop` see no key at or after it.
        block = query[:, :, start:stop].reshape(batch, key.shape[1], groups * (stop - start), dim)
        logits = torch.matmul(block, key[:, :, :stop].transpose(2, 3)).float().mul_(scaling)
        logits = logits.view(batch, heads, stop - start, stop)
        pairs += real_pairs(valid, batch, start, stop, stop)
        logits[..., start:stop] += future[: stop - start, : stop - start]
        if valid is not None:
            # A padding row sees nothing; it weighs nothing either, but must not turn into NaN.
            padding = ~valid[:, None, None, :stop] & valid[:, None, start:stop, None]
            logits.masked_fill_(padding, float("-inf"))
        attention = logits.softmax(-1)
        out[:, :, :stop] += torch.matmul(row_weights[:, :, start:stop].float(), attention.amax(1))
    return out, int(pairs) * (heads * dim + row_weights.shape[1])


def real_pairs(valid: torch.Tensor | None, batch: int, start: int, stop: int, columns: int) -> torch.Tensor | int:
    """Pairs of a row in start … stop and one of the first `columns` keys, both real, in a whole batch.

    FLOPs are counted without padding, here as everywhere: what a prompt costs does not depend on its neighbours.
    """
    if valid is None:
        return batch * (stop - start) * columns
    return (valid[:, start:stop].sum(1) * valid[:, :columns].sum(1)).sum()


def scoring_macs(rows: np.ndarray, q_size: int, kernels: bool = False) -> np.ndarray:
    """Multiply-accumulates of `head_max_columns` for one sample with two weighted sums, elementwise.

    Args:
        rows: rows that are computed, the first of them the first visual token's; as many columns are looked at.
        q_size: query heads × head size.
        kernels: as the Triton kernels count, which compute the logits twice, rather than the torch path.
    """
    size = np.where(rows <= 1024, 64, 128) if kernels else BLOCK_ROWS
    whole, part = rows // size, rows % size
    logits = size**2 * whole * (whole + 1) / 2 + part * rows
    return logits * ((2 if kernels else 1) * q_size + 2)


def last_row_mean(
    query: torch.Tensor,
    key: torch.Tensor,
    rows: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, int]:
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
    keys = len(rows) * key.shape[2] if valid is None else int(valid.sum())
    attention = _row_attention(query, key, rows[:, None], None, scaling, valid)
    return attention.mean((1, 2)), keys * query.shape[1] * query.shape[3]


def rows_mean(
    query: torch.Tensor,
    key: torch.Tensor,
    chosen: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, int]:
    """Softmax attention of the rows marked in `chosen`, bool (batch, T), averaged over heads and over these rows.

    Only these rows are computed. Arguments and results as in `last_row_mean`; a sample without a chosen row gets zeros.
    """
    maps, rows, macs = row_maps(query, key, chosen, scaling, valid)
    counted = (rows >= 0).float()
    weights = counted / counted.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("br,brk->bk", weights, maps.mean(1)), macs


def row_maps(
    query: torch.Tensor,
    key: torch.Tensor,
    chosen: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, int]:
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
    return maps, rows.masked_fill(~counted, -1), int((keys * count).sum()) * query.shape[1] * query.shape[3]


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
    grouped = query.reshape(batch, key.shape[1], heads // key.shape[1] * number, dim)
    logits = torch.matmul(grouped, key.transpose(2, 3)).float().mul_(scaling).view(batch, heads, number, length)
    hidden = torch.arange(length, device=query.device) > rows[:, :, None]
    if valid is not None:
        hidden = hidden | ~valid[:, None]
    if counted is not None:
        hidden = hidden & counted[:, :, None]  # what does not count must not turn into NaN
    return logits.masked_fill_(hidden[:, None], float("-inf")).softmax(-1)
