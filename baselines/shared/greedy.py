"""Greedy choices in padded batches, one token after the other: by one Triton kernel on CUDA, in torch elsewhere."""

import importlib
from collections.abc import Callable
from types import ModuleType

import torch

from baselines.shared.padded import first_picks
from fitprune.scoring.column_sums import triton_runs

LONGEST = 16384
"""Tokens up to which a kernel keeps what it knows of each in registers."""


def kernels_for(values: torch.Tensor) -> ModuleType | None:
    """The module of Triton kernels that chooses among these (batch, n, …); None where torch does the work."""
    if values.shape[1] > LONGEST or not triton_runs(values.device):
        return None
    return importlib.import_module("baselines.shared.triton_greedy")


def farthest(distance: torch.Tensor, nearest: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """The tokens that are farthest from one another, bool (batch, n).

    The first is that of highest `nearest`. Then follows, one by one, the token whose nearest chosen token is farthest. Of
    equals, the earliest is chosen.

    Args:
        distance: float32 (batch, n, n), symmetric, -inf from each token to itself.
        nearest: float32 (batch, n): the first choice's score; -inf for a token that may not be chosen.
        keep: LongTensor (batch,): how many to choose, at most as many as may be.
    """
    if (kernels := kernels_for(distance)) is not None:
        return kernels.farthest(distance, nearest, keep)
    samples = torch.arange(len(distance), device=distance.device)
    return farthest_by_rows(lambda pick, _: distance[samples, pick], nearest, keep)


def farthest_by_rows(
    row: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], nearest: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    """`farthest` in torch. `row` gives distances (batch, n) from tokens (batch,), and is told each token's score (batch, n)."""
    closed, picks = nearest == -torch.inf, []
    for step in range(int(keep.max())):
        picks.append(nearest.argmax(1))
        reached = row(picks[-1], nearest)
        nearest = reached.masked_fill(closed, -torch.inf) if step == 0 else torch.minimum(nearest, reached)
    return first_picks(picks, keep, nearest.shape[1])


def covering(cosine: torch.Tensor, weight: torch.Tensor, there: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """The tokens that together cover all others, bool (batch, n).

    The gain of token j is weight[j] times the sum over all tokens i of max(0, cosine(i, j) - the highest cosine of i to a
    chosen token, or 0). The token of highest gain is next; of equals, the earliest.

    Args:
        cosine: float32 (batch, n, n), symmetric.
        weight: (batch, n), not negative.
        there: bool (batch, n): the tokens that may be chosen, and are to be covered.
        keep: LongTensor (batch,): how many to choose, at most as many as may be.
    """
    if (kernels := kernels_for(cosine)) is not None:
        return kernels.covering(cosine, weight, there, keep)
    cosine = cosine * there[:, :, None]
    covered = torch.zeros_like(weight, dtype=torch.float32)
    closed = torch.zeros_like(covered).masked_fill(~there, -torch.inf)
    samples, picks, more = torch.arange(len(there), device=there.device), [], torch.empty_like(cosine)
    for _ in range(int(keep.max())):
        torch.sub(cosine, covered[..., None], out=more).clamp_(min=0)
        best = torch.addcmul(closed, more.sum(1), weight).argmax(1)
        closed.scatter_(1, best[:, None], -torch.inf)
        covered = torch.maximum(covered, cosine[samples, :, best])
        picks.append(best)
    return first_picks(picks, keep, there.shape[1])
