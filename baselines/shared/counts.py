"""Counts of tokens that stay: authors' counts and shares, carried over to prompts of another length."""

import torch

from fitprune import FitPruneError


def share(total: torch.Tensor, count: int, of: int) -> torch.Tensor:
    """The counts, LongTensor (batch,), that are to `total` (batch,) as `count` is to `of`; rounded to the nearest."""
    return (total.double() * count / of).round().long()


def part(total: torch.Tensor, ratio: float) -> torch.Tensor:
    """int(total · ratio) for each of `total` (batch,), LongTensor (batch,).

    1e-9 is added before rounding down, because a product that is a whole number may come out just below it in floating point.
    """
    return (total.double() * ratio + 1e-9).long()


def check_counts(method: str, given: dict[str, int], visual_tokens: int) -> None:
    """Raise a `FitPruneError` unless every count is at least 0 and their sum is at most `visual_tokens`."""
    names = " + ".join(given)
    if visual_tokens < 1 or min(given.values()) < 0 or sum(given.values()) > visual_tokens:
        values = " + ".join(str(value) for value in given.values())
        raise FitPruneError(f"{method} keeps {names} tokens of visual_tokens, 0 up to all; not {values} of {visual_tokens}.")
