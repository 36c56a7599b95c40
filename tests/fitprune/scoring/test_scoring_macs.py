"""The closed form of the scoring's multiply-accumulates, against tiles counted one by one."""

import numpy as np
import pytest
import torch

from fitprune.scoring.macs import Blocks, batch_pairs, causal_pairs, column_sum_macs

SHAPES = [Blocks(1), Blocks(64), Blocks(4, 4), Blocks(6, 3), Blocks(128, 64)]


def literal(real, first_row, blocks):
    """Pairs of a real row and a real key in the tiles that a walk computes."""
    length, pairs = len(real), 0
    for start in range(first_row, length, blocks.rows):
        stop = min(start + blocks.rows, length)
        end = min(-(-stop // blocks.keys) * blocks.keys, length)
        pairs += sum(real[start:stop]) * sum(real[:end])
    return pairs


@pytest.mark.parametrize("blocks", SHAPES, ids=str)
def test_without_padding(blocks):
    for length in (0, 1, 3, 4, 5, 12, 63, 64, 65, 128, 200, 257):
        for first_row in (0, 1, 4, 5, 63, 64, 90):
            expected = literal([True] * length, first_row, blocks) if first_row < length else 0
            assert int(causal_pairs(length, first_row, blocks)) == expected
            assert batch_pairs(None, 3, length, first_row, blocks) == 3 * expected


@pytest.mark.parametrize("blocks", SHAPES, ids=str)
def test_with_padding_anywhere(blocks):
    generator = torch.Generator().manual_seed(0)
    for length in (1, 5, 64, 130):
        valid = torch.rand(3, length, generator=generator) < 0.7
        for first_row in (0, 3, 70):
            expected = sum(literal(row.tolist(), first_row, blocks) for row in valid)
            assert batch_pairs(valid, 3, length, first_row, blocks) == expected


def test_lengths_may_be_an_array():
    lengths = np.array([[1, 64, 65], [130, 200, 0]])
    alone = [[int(causal_pairs(length, 0, Blocks(64))) for length in row] for row in lengths.tolist()]
    assert causal_pairs(lengths, 0, Blocks(64)).tolist() == alone


def test_products_are_counted_as_often_as_they_are_computed():
    assert column_sum_macs(10, 32, 2, Blocks(64)) == 10 * (32 + 2)
    assert column_sum_macs(10, 32, 2, Blocks(64, 64, products=2)) == 10 * (2 * 32 + 2)
