"""What scoring is taken to cost is what the path that does the scoring computes, tile by tile."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fitprune.fitting.cost import Cost
from fitprune.models.sizes import DecoderSizes
from fitprune.scoring import column_sums
from fitprune.scoring.macs import Blocks

SIZES = DecoderSizes("llava", layers=2, hidden_size=8, intermediate_size=16, kv_size=8, q_size=8)


def tiles(length, rows, keys, products):
    """Multiply-accumulates of two weighted sums, tile by tile: products of 8 channels, and the sums."""
    macs = 0
    for start in range(0, length, rows):
        stop = min(start + rows, length)
        macs += (stop - start) * min(-(-stop // keys) * keys, length) * (products * 8 + 2)
    return macs


def scoring(blocks):
    """What scoring adds to a layer that 20 and that 1500 visual tokens enter, after 10 tokens of text."""
    entered, kept = np.array([20, 1500]), np.array([10, 700])
    bare = Cost(SIZES).layer(entered, kept)
    return (Cost(SIZES, 10, blocks).layer(entered, kept, scored=np.array([True, True])) - bare).tolist()


def test_the_torch_path_takes_blocks_of_64_rows():
    blocks = column_sums.blocks_for(torch.empty(1, 1, 1, 4))
    assert scoring(blocks) == scoring(column_sums.in_blocks) == [tiles(30, 64, 1, 1), tiles(1510, 64, 1, 1)]


@pytest.mark.parametrize(("dtype", "large"), [(torch.float16, 128), (torch.float32, 64)])
def test_the_kernels_take_the_tiles_of_their_own(monkeypatch, dtype, large):
    """By length, head size and dtype: what the kernels' module says is what is counted."""

    def tile(dim, length, own):
        assert (dim, own) == (4, dtype)
        size = large if length > 1024 else 64
        return SimpleNamespace(blocks=Blocks(size, size, products=2))

    monkeypatch.setattr(column_sums, "kernels_for", lambda query: SimpleNamespace(tile=tile))
    blocks = column_sums.blocks_for(torch.empty(1, 1, 1, 4, dtype=dtype))
    assert scoring(blocks) == [tiles(30, 64, 64, 2), tiles(1510, large, large, 2)]


def test_layers_that_are_not_scored_cost_nothing_more():
    entered = np.array([20, 30])
    bare = Cost(SIZES).layer(entered, entered)
    assert Cost(SIZES, 10).layer(entered, entered).tolist() == bare.tolist()
    one = Cost(SIZES, 10).layer(entered, entered, scored=np.array([False, True])) - bare
    assert one.tolist() == [0, tiles(40, 64, 1, 1)]
