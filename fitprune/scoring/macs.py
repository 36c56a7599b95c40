"""Multiply-accumulates of the causal column statistics, in closed form.

Query rows are taken in blocks. A block that ends before row `stop` is multiplied with the keys before `stop`, rounded up to
whole blocks of keys, and counts in full: the part above the diagonal too. What pads a block beyond the end of the sequence,
and padding of the batch, does not count: the cost of a prompt does not depend on its neighbours in a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

# Multiply-accumulates: a number of the host, one on the device, or what works it out when somebody asks.
Macs = int | torch.Tensor | Callable[[], int]


def counted(macs: Macs) -> int:
    """The number. It waits for the device where that holds it."""
    return int(macs if isinstance(macs, int | torch.Tensor) else macs())


class Blocks(NamedTuple):
    """How an implementation walks over the attention map.

    Attributes:
        rows: query rows of a block; keys: keys of a block, at most `rows` and a divisor of it.
        products: how often each product of a query and a key is computed.
    """

    rows: int
    keys: int = 1
    products: int = 1


def column_sum_macs(pairs: Any, q_size: int, sums: int, blocks: Blocks) -> Any:
    """Multiply-accumulates for `pairs` of a row and a key, with `q_size` = query heads × head size and `sums` weighted sums."""
    return pairs * (blocks.products * q_size + sums)


def causal_pairs(length: Any, first_row: int, blocks: Blocks) -> Any:
    """Pairs of a row and a key in one sample without padding; `length` is a number or an integer array, elementwise.

    With b rows of a block, w whole blocks, p rows left, T = `length`, and f = `first_row` rounded up to whole blocks of keys:
    b · (w · f + b · w (w + 1) / 2) + p · T. The last whole block may be rounded up beyond T, which is taken off.
    """
    size = blocks.rows
    whole, part = np.divmod(np.maximum(length - first_row, 0), size)
    start = -(-first_row // blocks.keys) * blocks.keys
    beyond = np.where(whole > 0, np.maximum(start + whole * size - length, 0), 0)
    return size * (whole * start + size * (whole * (whole + 1) // 2) - beyond) + part * length


def batch_pairs(valid: torch.Tensor | None, batch: int, length: int, first_row: int, blocks: Blocks) -> int:
    """Pairs of a real row and a real key in a batch; `valid` is bool (batch, `length`), None without padding."""
    if valid is None or first_row >= length:
        return batch * int(causal_pairs(length, first_row, blocks))
    # Real tokens before each position: a block's rows and keys are differences of these.
    before = torch.nn.functional.pad(valid.cumsum(1), (1, 0))
    starts = torch.arange(first_row, length, blocks.rows, device=valid.device)
    stops = (starts + blocks.rows).clamp(max=length)
    ends = (-(-stops // blocks.keys) * blocks.keys).clamp(max=length)
    return int(((before[:, stops] - before[:, starts]) * before[:, ends]).sum())
