"""VisPruner's choice: duplicates are removed in rounds, in torch or Triton."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from baselines.shared.choosing.greedy import kernels_for
from baselines.shared.padded import rows_at, true_first

HELD = 3072
"""Candidates up to which all similarities are held; those of longer lists are computed in each round, in blocks."""

BLOCK = 1024
"""Candidates of such a block."""


def distinct(features: torch.Tensor, lengths: Sequence[int], wanted: Sequence[int], per_round: Sequence[int]) -> torch.Tensor:
    """Which candidates stay: bool (batch, m).

    In each round, a list is split into its even and odd entries. The evens go that are most similar to an odd one, by the
    cosine of their features. The other evens, most similar first, and then the odds are the next round's list.

    Args:
        features: (batch, m, C): of each sample's candidates, in the order of its list.
        lengths: how many these are in each sample; m is the highest.
        wanted: how many of them stay.
        per_round: how many go in a round.
    """
    unit = functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
    return thinned(unit, unit @ unit.mT if unit.shape[1] <= HELD else None, lengths, wanted, per_round)


def thinned(
    unit: torch.Tensor, alike: torch.Tensor | None, lengths: Sequence[int], wanted: Sequence[int], per_round: Sequence[int]
) -> torch.Tensor:
    """`distinct` of unit vectors (batch, m, C) and, where they are held, their similarities (batch, m, m)."""
    end, rounds = unit.shape[1], removals(lengths, wanted, per_round)
    size, goal, fastest = torch.tensor([lengths, wanted, per_round]).to(unit.device)
    if alike is not None and (kernels := kernels_for(alike)) is not None:
        return kernels.distinct(alike, size, goal, fastest)
    number = torch.arange(end, device=unit.device)
    there = number < size[:, None]
    if not rounds:
        return there
    # Padding is similar to nothing.
    unit = functional.pad(unit, (0, 0, 0, 1))
    alike = None if alike is None else functional.pad(alike, (0, 1, 0, 1), value=-float("inf"))
    left, listed = list(lengths), number.masked_fill(~there, end)
    for fewer, gone in zip(rounds, torch.tensor(rounds).to(unit.device), strict=True):
        left = [most - less for most, less in zip(left, fewer, strict=True)]
        listed = _remove(listed, unit, alike, gone)[:, : max(left)]
    return torch.zeros(len(unit), end + 1, dtype=torch.bool, device=unit.device).scatter(1, listed, True)[:, :end]


def removals(lengths: Sequence[int], wanted: Sequence[int], per_round: Sequence[int]) -> list[list[int]]:
    """For each round, the number of candidates per sample that go, until lists of `lengths` are as short as `wanted`."""
    rounds = []
    while any(most > some for most, some in zip(lengths, wanted, strict=True)):
        each = zip(lengths, wanted, per_round, strict=True)
        rounds.append([max(min(most - some, (most + 1) // 2, fastest), 0) for most, some, fastest in each])
        lengths = [most - gone for most, gone in zip(lengths, rounds[-1], strict=True)]
    return rounds


def _remove(listed: torch.Tensor, unit: torch.Tensor, alike: torch.Tensor | None, gone: torch.Tensor) -> torch.Tensor:
    """One round of duplicate removal.

    Args:
        listed: LongTensor (batch, m'): the candidates, padded with m.
        unit: (batch, m + 1, C), their unit vectors.
        alike: (batch, m + 1, m + 1), their similarities, where they are held.
        gone: LongTensor (batch,): number of even entries that go, the most similar to an odd one first.

    Returns:
        LongTensor (batch, m'): the candidates left, padded with m.
    """
    end, evens, odds = unit.shape[1] - 1, listed[:, ::2], listed[:, 1::2]
    nearest = torch.cat([_nearest(some, odds, unit, alike) for some in evens.split(BLOCK if alike is None else end, 1)], 1)
    evens = evens.gather(1, nearest.argsort(dim=1, descending=True, stable=True))
    leaving = torch.arange(evens.shape[1], device=listed.device) < gone[:, None]
    listed = torch.cat([evens.masked_fill(leaving, end), odds], 1)
    return listed.gather(1, true_first(listed != end))


def _nearest(evens: torch.Tensor, odds: torch.Tensor, unit: torch.Tensor, alike: torch.Tensor | None) -> torch.Tensor:
    """The highest similarity (batch, e) of each even candidate to an odd one; -inf for padding."""
    if alike is not None:
        rows = torch.arange(len(odds), device=odds.device)[:, None, None]
        return alike[rows, evens[:, :, None], odds[:, None]].amax(2)
    end = unit.shape[1] - 1
    cosine = rows_at(unit, evens) @ rows_at(unit, odds).mT
    return cosine.masked_fill_(odds[:, None] == end, -torch.inf).amax(2).masked_fill(evens == end, -torch.inf)
