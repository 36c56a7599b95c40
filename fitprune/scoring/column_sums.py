"""`head_max_columns`: column statistics of attention, computed in blocks of query rows without a (heads, T, T) map."""

import functools
import importlib
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

import torch

from fitprune.scoring.macs import Blocks, Macs, batch_pairs, column_sum_macs
from fitprune.scoring.precision import in_float32

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
    together: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Macs]:
    """Weighted sums over query rows of the head-wise maximum of causal softmax attention.

    With A[h, q, k] the softmax attention and M[q, k] = max_h A[h, q, k] (not renormalised), the result is
    out[b, r, k] = sum_q row_weights[b, r, q] · M[q, k]. The Triton kernels of
    `fitprune.scoring.triton_column_sums` compute it on NVIDIA cards from Ampere on, and torch in blocks of rows everywhere
    else. Both take the products of half precision in float32.

    Args:
        query: (batch, heads, T, d), rotary embedding applied.
        key: (batch, kv_heads, T, d); heads is a multiple of kv_heads.
        row_weights: (batch, R, T), float; rows before `first_row` must weigh nothing.
        scaling: factor on the logits.
        valid: (batch, T) bool, False for padding; None where all tokens are real.
        first_row: rows before it are not computed.
        together: LongTensor (batch, T): rows of the same number see one another in both directions, those of 0 do not; None
            where attention is causal. The kernels do not take it.

    Returns:
        float32 (batch, R, T), and the multiply-accumulates of its products, padding left out. The kernels compute that of
        queries and keys twice, and count it so.
    """
    if together is None and (kernels := kernels_for(query)) is not None:
        return kernels.head_max_columns(query, key, row_weights, scaling, valid, first_row)
    return head_max_columns_in_blocks(query, key, row_weights, scaling, valid, first_row, together=together)


def kernels_for(query: torch.Tensor) -> ModuleType | None:
    """The module of Triton kernels that `head_max_columns` uses for this tensor; None where torch does the work."""
    kernels = _kernels() if triton_runs(query) else None
    return kernels if kernels is not None and kernels.supported(query) else None


def triton_runs(values: torch.Tensor) -> bool:
    """Whether Triton can be used where a tensor is: on an NVIDIA card from Ampere on, for which it compiles and launches."""
    kernels = _kernels() if values.is_cuda else None
    return kernels is not None and kernels.usable(values.device)


def blocks_for(query: torch.Tensor) -> Callable[[int], Blocks]:
    """How `head_max_columns` walks over the attention of such queries, by their number."""
    kernels = kernels_for(query)
    return in_blocks if kernels is None else lambda length: kernels.tile(query.shape[-1], length, query.dtype).blocks


def in_blocks(length: int) -> Blocks:
    """How the torch path does, for any number."""
    return Blocks(BLOCK_ROWS)


def in_one_block(length: int) -> Blocks:
    """How the torch path does where attention is not causal: every row with every key."""
    return Blocks(max(length, 1))


@functools.cache
def _kernels() -> ModuleType | None:
    """The module of the Triton kernels; None without Triton, which comes with torch's CUDA builds for Linux."""
    return importlib.import_module("fitprune.scoring.triton_column_sums") if find_spec("triton") else None


@torch.no_grad()
def head_max_columns_in_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    row_weights: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
    first_row: int = 0,
    block_rows: int = BLOCK_ROWS,
    together: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Macs]:
    """`head_max_columns` in torch, `block_rows` rows at a time."""
    batch, heads, length, dim = query.shape
    groups, key = heads // key.shape[1], in_float32(key)
    out = torch.zeros(batch, row_weights.shape[1], length, dtype=torch.float32, device=query.device)
    future = torch.full((block_rows, block_rows), float("-inf"), device=query.device).triu(1)
    # On a CPU it costs nothing to ask where padding ends; on a GPU all keys are masked.
    padded = length
    if valid is not None and not valid.is_cuda:
        padded = int(((~valid).any(0) * torch.arange(1, length + 1, device=valid.device)).max())
    for start in range(first_row, length, block_rows):
        stop = min(start + block_rows, length)
        # Causality: rows before `stop` see no key at or after it.
        keys = stop if together is None else length
        block = in_float32(query[:, :, start:stop]).reshape(batch, key.shape[1], groups * (stop - start), dim)
        logits = torch.matmul(block, key[:, :, :keys].transpose(2, 3)).float().mul_(scaling)
        logits = logits.view(batch, heads, stop - start, keys)
        if together is None:
            logits[..., start:stop] += future[: stop - start, : stop - start]
        else:
            rows = torch.arange(length, device=query.device)
            own = together[:, start:stop, None]
            beyond = (rows > rows[start:stop, None]) & ((own != together[:, None]) | (own == 0))
            logits.masked_fill_(beyond[:, None], float("-inf"))
        if valid is not None:
            # A padding row sees nothing; it weighs nothing either, but must not turn into NaN.
            padding = ~valid[:, None, None, : min(keys, padded)] & valid[:, None, start:stop, None]
            logits[..., :padded].masked_fill_(padding, float("-inf"))
        attention = logits.softmax(-1)
        out[:, :, :keys] += torch.matmul(row_weights[:, :, start:stop].float(), attention.amax(1))
    blocks, sums = Blocks(block_rows) if together is None else in_one_block(length), row_weights.shape[1]
    return out, lambda: column_sum_macs(batch_pairs(valid, batch, length, first_row, blocks), heads * dim, sums, blocks)
