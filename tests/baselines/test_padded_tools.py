"""The tools for padded batches against literal loops over samples and tokens."""

import pytest
import torch

from baselines.shared import padded

ROWS, N = 5, 17


def drawn(seed, share=0.6):
    """Scores with ties, and a mask of which one row is empty and one is full."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(0, 6, (ROWS, N), generator=generator).float()
    mask = torch.rand(ROWS, N, generator=generator) < share
    mask[0], mask[1] = False, True
    return score, mask, generator


def named(row):
    """The indices of a row that is padded with -1 on the right."""
    filled = [index for index in row.tolist() if index >= 0]
    assert row.tolist() == filled + [-1] * (len(row) - len(filled))
    return filled


def by_falling(score, members):
    """Of equals the earlier first: Python's sort is stable."""
    return sorted(members, key=lambda index: -score[index])


def members_of(mask, row):
    return [index for index in range(N) if mask[row, index]]


@pytest.mark.parametrize("seed", range(3))
def test_indices_and_marks(seed):
    _, mask, generator = drawn(seed)
    index = padded.indices_of(mask)
    assert index.shape[1] == N
    assert [named(row) for row in index] == [members_of(mask, row) for row in range(ROWS)]
    shuffled = index[:, torch.randperm(N, generator=generator)]
    assert torch.equal(padded.marked(shuffled, N), mask)
    assert padded.indices_of(mask[:1]).shape == (1, 0)
    assert not padded.marked(torch.zeros(2, 0, dtype=torch.long), N).any()
    order = padded.true_first(mask)
    for row in range(ROWS):
        own = members_of(mask, row)
        assert order[row].tolist() == own + [index for index in range(N) if index not in own]


@pytest.mark.parametrize("seed", range(3))
def test_orders_and_ranks(seed):
    score, mask, generator = drawn(seed)
    count = torch.randint(0, N + 1, (ROWS,), generator=generator)
    order, chosen = padded.descending(score, mask), padded.highest(score, mask, count)
    rank, leading = padded.ranks(order), padded.highest_indices(score, mask, 4)
    for row in range(ROWS):
        expected = by_falling(score[row].tolist(), members_of(mask, row))
        assert order[row, : len(expected)].tolist() == expected
        assert sorted(order[row].tolist()) == list(range(N))
        assert [int(rank[row, index]) for index in expected] == list(range(len(expected)))
        assert members_of(chosen, row) == sorted(expected[: int(count[row])])
        assert named(leading[row]) == expected[:4]


@pytest.mark.parametrize("seed", range(3))
def test_groups(seed):
    score, mask, generator = drawn(seed)
    group = torch.randint(0, 4, (ROWS, N), generator=generator).masked_fill(~mask, -1)
    sums, rank = padded.group_sums(score, group, 4), padded.ranks_in_groups(score, group, 4)
    for row in range(ROWS):
        for number in range(4):
            own = [index for index in range(N) if group[row, index] == number]
            assert float(sums[row, number]) == sum(float(score[row, index]) for index in own)
            assert [int(rank[row, index]) for index in by_falling(score[row].tolist(), own)] == list(range(len(own)))


def test_rows_of_any_width():
    values, index = torch.randn(ROWS, N, 3, 2), torch.tensor([[4, 0, -1]] * ROWS)
    picked = padded.rows_at(values, index)
    assert picked.shape == (ROWS, 3, 3, 2)
    for row in range(ROWS):
        assert torch.equal(picked[row, :2], values[row, [4, 0]])


def test_the_first_picks_of_a_greedy_choice():
    picks = [torch.tensor(step) for step in ([2, 0, 1], [0, 3, 2], [3, 1, 0])]
    chosen = padded.first_picks(picks, torch.tensor([2, 0, 3]), 4)
    assert [row.nonzero().flatten().tolist() for row in chosen] == [[0, 2], [], [0, 1, 2]]
    assert not padded.first_picks([], torch.tensor([0, 0]), 4).any()


@pytest.mark.parametrize("seed", range(3))
def test_selections_close_their_gaps(seed):
    _, mask, generator = drawn(seed)
    index = torch.stack([torch.randperm(N, generator=generator) for _ in range(ROWS)]).masked_fill(~mask, -1)
    hidden, made = torch.randn(ROWS, N, 3, generator=generator), torch.rand(ROWS, N, generator=generator) < 0.5
    selected = padded.selection(index, hidden, made)
    for row in range(ROWS):
        own = members_of(mask, row)
        assert named(selected.index[row]) == index[row, own].tolist()
        assert torch.equal(selected.hidden[row, : len(own)], hidden[row, own])
        assert selected.made[row].tolist() == made[row, own].tolist() + [False] * (selected.index.shape[1] - len(own))
