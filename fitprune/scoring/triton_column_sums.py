"""`head_max_columns` on CUDA: two Triton kernels, and nothing of the size of an attention map.

The first finds each query row's log-sum-exp, as flash attention does (Dao et al., arXiv 2205.14135, section 3.1). The second
computes the logits once more: a tile of rows × keys goes through all heads, keeps the largest logit less its row's
log-sum-exp, and exponentiates that once, for exp is monotonic. Each tile writes its weighted sums of rows to a place of its
own; torch adds the tiles of a column. No atomic addition is used, so that results do not vary from run to run.

Memory beyond the result, in float32: heads × rows for the log-sum-exps, and R × T × ceil(rows / rows of a tile) for the
tiles' sums.

Products of float32 are taken in full precision (no TF32), those of bfloat16 and float16 on tensor cores with float32 sums.
The torch path agrees: it converts half precision to float32.
"""

import functools
import warnings
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fitprune.scoring.macs import Blocks, Macs, batch_pairs, column_sum_macs

LOG2_E = 1.4426950408889634


class Tile(NamedTuple):
    """Rows and keys of one tile of logits, the slice of the head size multiplied at a time, warps and pipeline stages."""

    rows: int
    keys: int
    depth: int
    warps: int
    stages: int

    @property
    def blocks(self) -> Blocks:
        """How the kernels walk over the attention map: the second kernel computes the logits once more."""
        return Blocks(self.rows, self.keys, products=2)


def tile(dim: int, length: int, dtype: torch.dtype) -> Tile:
    """What a program of the kernels works on; it depends on nothing that could make a result vary with the batch.

    Every entry compiles to less than the 99 KiB of shared memory of consumer cards (128 KiB on Hopper, which has 227). Short
    prompts get small tiles, so that there are enough of them to occupy a card.
    """
    if dtype == torch.float32:
        return Tile(64, 64, 16, 8, 2 if dim <= 128 else 1)
    # The largest power of two that divides the head size, so that 80 or 96 need no padding: 16 or 32.
    depth = min(max(dim & -dim, 16), 128)
    if dim > 128:
        return Tile(64, 64, depth, 4, 2)
    return Tile(64, 64, depth, 4, 3) if length <= 1024 else Tile(128, 128, depth, 8, 2)


@triton.jit
def _products(
    query: tl.tensor,
    key: tl.tensor,
    row_step: tl.tensor,
    key_step: tl.tensor,
    rows_left: tl.tensor,
    keys_left: tl.tensor,
    dim: tl.constexpr,
    rows: tl.constexpr,
    keys: tl.constexpr,
    depth: tl.constexpr,
    widen: tl.constexpr,
) -> tl.tensor:
    """Inner products, float32 (rows, keys), of the query rows and the keys that begin at two addresses."""
    row = tl.arange(0, rows)[:, None]
    column = tl.arange(0, keys)[:, None]
    products = tl.zeros((rows, keys), tl.float32)
    for first in tl.static_range(0, dim, depth):
        place = first + tl.arange(0, depth)[None, :]
        q = tl.load(query + row * row_step + place, mask=(row < rows_left) & (place < dim), other=0.0)
        k = tl.load(key + column * key_step + place, mask=(column < keys_left) & (place < dim), other=0.0)
        if widen:
            q, k = q.to(tl.float32), k.to(tl.float32)
        products = tl.dot(q, tl.trans(k), products, input_precision="ieee")
    return products


@triton.jit(do_not_specialize=["length", "first_row", "blocks"])
def _log_sum_exp(
    query: tl.tensor,
    key: tl.tensor,
    valid: tl.tensor,
    out: tl.tensor,
    query_steps: tl.tuple,
    key_steps: tl.tuple,
    heads: tl.tensor,
    groups: tl.tensor,
    length: tl.tensor,
    first_row: tl.tensor,
    blocks: tl.tensor,
    scale: tl.tensor,
    dim: tl.constexpr,
    rows: tl.constexpr,
    keys: tl.constexpr,
    depth: tl.constexpr,
    widen: tl.constexpr,
) -> None:
    """out[b, h, q - first_row] = log2 sum_k 2^(scale · q·k) over the real keys up to q; infinity where there is none.

    One program for each sample, head and block of rows.
    """
    program = tl.program_id(0)
    sample = (program // blocks // heads).to(tl.int64)
    head = (program // blocks % heads).to(tl.int64)
    # The last blocks see the most keys; they start first.
    start = first_row + (blocks - 1 - program % blocks) * rows
    row = start + tl.arange(0, rows)
    query += sample * query_steps[0] + head * query_steps[1] + tl.cast(start, tl.int64) * query_steps[2]
    key += sample * key_steps[0] + head // groups * key_steps[1]
    largest = tl.full((rows,), float("-inf"), tl.float32)
    total = tl.zeros((rows,), tl.float32)
    for first in range(0, tl.minimum(start + rows, length), keys):
        logits = scale * _products(
            query,
            key + tl.cast(first, tl.int64) * key_steps[2],
            query_steps[2],
            key_steps[2],
            length - start,
            length - first,
            dim,
            rows,
            keys,
            depth,
            widen,
        )
        column = first + tl.arange(0, keys)
        seen = column[None, :] <= row[:, None]
        if valid is not None:
            seen &= tl.load(valid + sample * length + column, mask=column < length, other=0)[None, :] != 0
        logits = tl.where(seen, logits, float("-inf"))
        grown = tl.maximum(largest, tl.max(logits, 1))
        # A row that has seen no real key yet has no largest logit to subtract.
        base = tl.where(grown == float("-inf"), 0.0, grown)
        total = total * tl.exp2(largest - base) + tl.sum(tl.exp2(logits - base[:, None]), 1)
        largest = grown
    result = tl.where(total > 0, largest + tl.log2(tl.where(total > 0, total, 1.0)), float("inf"))
    place = (sample * heads + head) * (length - first_row) + row - first_row
    tl.store(out + place, result, mask=row < length)


@triton.jit(do_not_specialize=["length", "first_row", "blocks"])
def _tile_sums(
    query: tl.tensor,
    key: tl.tensor,
    valid: tl.tensor,
    log_sum_exp: tl.tensor,
    row_weights: tl.tensor,
    out: tl.tensor,
    query_steps: tl.tuple,
    key_steps: tl.tuple,
    heads: tl.tensor,
    groups: tl.tensor,
    length: tl.tensor,
    first_row: tl.tensor,
    blocks: tl.tensor,
    scale: tl.tensor,
    sums: tl.constexpr,
    dim: tl.constexpr,
    rows: tl.constexpr,
    keys: tl.constexpr,
    depth: tl.constexpr,
    widen: tl.constexpr,
) -> None:
    """out[b, i, r, k] = sum of row_weights[b, r, q] · max_h softmax[h, q, k] over the rows q of block i.

    One program for each block of keys, block of rows and sample. Tiles above the diagonal are left as they are.
    """
    first = tl.program_id(0) * keys
    block = blocks - 1 - tl.program_id(1)
    start = first_row + block * rows
    if first >= tl.minimum(start + rows, length):
        return
    sample = tl.program_id(2).to(tl.int64)
    row = start + tl.arange(0, rows)
    column = first + tl.arange(0, keys)
    query += sample * query_steps[0] + tl.cast(start, tl.int64) * query_steps[2]
    key += sample * key_steps[0] + tl.cast(first, tl.int64) * key_steps[2]
    log_sum_exp += sample * heads * (length - first_row) + row - first_row
    largest = tl.full((rows, keys), float("-inf"), tl.float32)
    for head in range(heads):
        logits = scale * _products(
            query + tl.cast(head, tl.int64) * query_steps[1],
            key + tl.cast(head // groups, tl.int64) * key_steps[1],
            query_steps[2],
            key_steps[2],
            length - start,
            length - first,
            dim,
            rows,
            keys,
            depth,
            widen,
        )
        norm = tl.load(log_sum_exp + tl.cast(head, tl.int64) * (length - first_row), mask=row < length, other=float("inf"))
        largest = tl.maximum(largest, logits - norm[:, None])
    seen = column[None, :] <= row[:, None]
    if valid is not None:
        seen &= tl.load(valid + sample * length + column, mask=column < length, other=0)[None, :] != 0
    attention = tl.where(seen, tl.exp2(largest), 0.0)
    for index in tl.static_range(sums):
        weight = tl.load(row_weights + (sample * sums + index) * length + row, mask=row < length, other=0.0)
        place = ((sample * blocks + block) * sums + index) * length + column
        tl.store(out + place, tl.sum(weight[:, None] * attention, 0), mask=column < length)


def supported(query: torch.Tensor) -> bool:
    """Whether the kernels have a tile for queries of this type and head size."""
    return query.dtype in (torch.float32, torch.bfloat16, torch.float16) and query.shape[-1] <= 256


def usable(device: torch.device) -> bool:
    """Whether kernels of Triton run on this CUDA device: NVIDIA's from Ampere on."""
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0) and runs_on(device)


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Whether Triton can compile and launch for this device; where it cannot, a warning says why, once."""
    probe = torch.ones(1, 1, 1, 16, device=device)
    try:
        head_max_columns(probe, probe, probe[..., 0], 1.0)
    # Whatever it is, from a missing C compiler to a driver too old, the torch path does not need it.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        warnings.warn(
            f"Triton does not run on {device} ({type(error).__name__}: {reason}); attention statistics are computed by torch, "
            "more slowly. Triton needs a C compiler and Python's headers.",
            stacklevel=2,
        )
        return False
    return True


@torch.no_grad()
def head_max_columns(
    query: torch.Tensor,
    key: torch.Tensor,
    row_weights: torch.Tensor,
    scaling: float,
    valid: torch.Tensor | None = None,
    first_row: int = 0,
) -> tuple[torch.Tensor, Macs]:
    """`fitprune.scoring.column_sums.head_max_columns` by the kernels; the same arguments, shapes and meaning.

    Views with any strides are read in place, but for the head size, which must be dense and is made so. A row without a real
    key before it, as in left padding, adds nothing.

    Returns:
        float32 (batch, R, T), and its multiply-accumulates: nearly twice the torch path's count, since the logits are
        computed twice.
    """
    batch, heads, length, dim = query.shape
    sums = row_weights.shape[1]
    shape = tile(dim, length, query.dtype)
    blocks = triton.cdiv(max(length - first_row, 0), shape.rows)
    if not blocks or not batch:
        return torch.zeros(batch, sums, length, dtype=torch.float32, device=query.device), 0
    query, key = (tensor if tensor.stride(3) == 1 else tensor.contiguous() for tensor in (query, key))
    real = valid
    if valid is not None:
        valid = valid.contiguous().view(torch.uint8)
    row_weights = row_weights.float().contiguous()
    norms = torch.empty(batch, heads, length - first_row, dtype=torch.float32, device=query.device)
    partial = torch.zeros(batch, blocks, sums, length, dtype=torch.float32, device=query.device)
    # Triton's interpreter cannot multiply bfloat16 (triton-lang/triton issue 11584).
    widen = query.dtype == torch.bfloat16 and not isinstance(_tile_sums, triton.JITFunction)
    common = (query.stride()[:3], key.stride()[:3], heads, heads // key.shape[1], length, first_row, blocks, scaling * LOG2_E)
    sizes = {"dim": dim, "rows": shape.rows, "keys": shape.keys, "depth": shape.depth, "widen": widen}
    options = {"num_warps": shape.warps, "num_stages": shape.stages}
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(query):
        _log_sum_exp[(batch * heads * blocks,)](query, key, valid, norms, *common, **sizes, **options)
        grid = (triton.cdiv(length, shape.keys), blocks, batch)
        _tile_sums[grid](query, key, valid, norms, row_weights, partial, *common, sums=sums, **sizes, **options)
    walk = shape.blocks
    return partial.sum(1), lambda: column_sum_macs(batch_pairs(real, batch, length, first_row, walk), heads * dim, sums, walk)
