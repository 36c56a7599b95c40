"""How many tokens stay: what authors' counts and shares come to in a prompt of another length."""

import torch

from fitprune import FitPruneError


def share(total: torch.Tensor, count: int, of: int) -> torch.Tensor:
    """`count` tokens `of` so many, brought to prompts with `total` (batch,) tokens: LongTensor (batch,), rounded."""
    return (total.double() * count / of).round().long()


def part(total: torch.Tensor, ratio: float) -> torch.Tensor:
    """The authors' int(total · ratio), LongTensor like `total`; a hair more, so that whole products stay whole."""
    return (total.double() * ratio + 1e-9).long()


def check_counts(method: str, given: dict[str, int], visual_tokens: int) -> None:
    """Raise a `FitPruneError` unless the counts by name are 0 or more and together at most `visual_tokens`."""
    names = " + ".join(given)
    if visual_tokens < 1 or min(given.values()) < 0 or sum(given.values()) > visual_tokens:
        values = " + ".join(str(value) for value in given.values())
        raise FitPruneError(f"{method} keeps {names} tokens of visual_tokens, 0 up to all; not {values} of {visual_tokens}.")
