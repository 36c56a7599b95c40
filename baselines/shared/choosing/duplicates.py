"""DART's choice: pivots, each of which keeps the tokens that duplicate it least."""

import torch

from baselines.shared.padded import highest


def least_duplicates(similarity: torch.Tensor, free: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Each pivot, in turn, takes the free tokens that are least similar to it.

    Args:
        similarity: (batch, P, n), of P pivots to n visual tokens.
        free: bool (batch, n): tokens that may be taken; pivots are not.
        shares: LongTensor (batch, P): the number of tokens that each pivot takes.

    Returns:
        bool (batch, n): the tokens taken.
    """
    taken = torch.zeros_like(free)
    # A pivot chooses among the tokens that the pivots before it have left, so this is a loop over the pivots.
    for pivot in range(similarity.shape[1]):
        taken = taken | highest(-similarity[:, pivot], free & ~taken, shares[:, pivot])
    return taken


def equal_shares(budget: torch.Tensor, pivots: torch.Tensor, *, remainder: bool) -> torch.Tensor:
    """The number of tokens that each pivot takes, LongTensor (batch, P).

    Args:
        budget: LongTensor (batch, 1), tokens for all pivots of a prompt.
        pivots: bool (batch, P): which of the pivots a prompt has.
        remainder: whether the first pivots take one token more where the budget is no multiple of their number.
    """
    number = pivots.sum(1, keepdim=True).clamp(min=1)
    shares = (budget // number).expand(pivots.shape)
    if remainder:
        shares = shares + (pivots.cumsum(1) <= budget % number)
    return shares * pivots
