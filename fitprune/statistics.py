"""Column statistics of attention, computed in blocks of query rows: no (heads, T, T) map is ever kept."""

import torch

# Rows of one block: large enough for an efficient matrix product, small enough that heads × rows × T stays far below the
# activations of the layer itself.
BLOCK_ROWS = 128


def head_max_columns(
    query: torch.Tensor,
    key: torch.Tensor,
    row_weights: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
    first_row: int = 0,
    block_rows: int = BLOCK_ROWS,
) -> tuple[torch.Tensor, int]:
    """Weighted sums over query rows of the head-wise maximum of causal softmax attention.

    With A[h, q, k] the softmax attention and M[q, k] = max_h A[h, q, k] (not renormalised), the result is
    out[b, r, k] = sum_q row_weights[b, r, q] · M[q, k].

    Args:
        query: (batch, heads, T, d), rotary embedding applied.
        key: (batch, kv_heads, T, d); heads is a multiple of kv_heads.
        row_weights: (batch, R, T), float; rows before `first_row` must weigh nothing.
        scaling: factor on the logits.
        valid: (batch, T) bool, False for padding; None where all tokens are real.
        first_row: rows before it are not computed.
        block_rows: rows computed at a time.

    Returns:
        float32 (batch, R, T), and the multiply-accumulates of its two products.
    """
    batch, heads, length, dim = query.shape
    groups = heads // key.shape[1]
    out = torch.zeros(batch, row_weights.shape[1], length, dtype=torch.float32, device=query.device)
    columns = torch.arange(length, device=query.device)
    macs = 0
    for start in range(first_row, length, block_rows):
        stop = min(start + block_rows, length)
        # Causality: rows before `stop` see no key at or after it.
        block = query[:, :, start:stop].reshape(batch, key.shape[1], groups * (stop - start), dim)
        logits = torch.matmul(block, key[:, :, :stop].transpose(2, 3)).float().mul_(scaling)
        logits = logits.view(batch, heads, stop - start, stop)
        macs += batch * heads * (stop - start) * stop * dim
        logits[..., start:stop].masked_fill_(columns[None, start:stop] > columns[start:stop, None], float("-inf"))
        if valid is not None:
            # A padding row sees nothing; it weighs nothing either, but must not turn into NaN.
            padding = ~valid[:, None, None, :stop] & valid[:, None, start:stop, None]
            logits.masked_fill_(padding, float("-inf"))
        attention = logits.softmax(-1)
        out[:, :, :stop] += torch.matmul(row_weights[:, :, start:stop].float(), attention.amax(1))
        macs += batch * row_weights.shape[1] * (stop - start) * stop
    return out, macs


def last_row_mean(
    query: torch.Tensor,
    key: torch.Tensor,
    rows: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, int]:
    """Head-mean softmax attention of one query row per sample, over all keys up to that row.

    Args:
        query: (batch, heads, T, d); key: (batch, kv_heads, T, d).
        rows: (batch,) the query row of each sample.
        scaling: factor on the logits.
        valid: (batch, T) bool, False for padding; None where all tokens are real.

    Returns:
        float32 (batch, T), and the multiply-accumulates of the products of queries and keys.
    """
    batch, heads, length, dim = query.shape
    row = query.gather(2, rows.view(-1, 1, 1, 1).expand(-1, heads, 1, dim))
    row = row.view(batch, key.shape[1], heads // key.shape[1], dim)
    logits = torch.matmul(row, key.transpose(2, 3)).float().mul_(scaling)
    hidden = torch.arange(length, device=query.device)[None] > rows[:, None]
    if valid is not None:
        hidden = hidden | ~valid
    attention = logits.masked_fill_(hidden[:, None, None], float("-inf")).softmax(-1)
    return attention.flatten(1, 2).mean(1), batch * heads * length * dim
