"""Which visual tokens go on where a mask is not enough: in another order, or merged into one another."""

from dataclasses import dataclass

import torch

from fitprune.errors import FitPruneError


@dataclass(frozen=True)
class Selection:
    """Visual tokens that go on, of the n present, and as what.

    In the sequence they take, in this order, the sorted places of the tokens that they are named by; text in between stays
    where it is. With positions "kept" each has the position id of the token that it is named by.

    Attributes:
        index: LongTensor (batch, m): places among the tokens present, each at most once, padded with -1 on the right.
        hidden: (batch, m, hidden_size): what they are from here on; None leaves them as they are.
        made: bool (batch, m): True where a row is no token that could be named any more (a [CLS] token, a sum of all dropped
            tokens); it sits in the place of the dropped token that `index` names, and `Trace.kept` leaves it out.
    """

    index: torch.Tensor
    hidden: torch.Tensor | None = None
    made: torch.Tensor | None = None

    def mask(self, present: torch.Tensor) -> torch.Tensor:
        """bool (batch, n): the places that are named; raises FitPruneError for a place named twice or without a token."""
        batch, n = present.shape
        named = torch.zeros(batch, n + 1, dtype=torch.long, device=present.device)
        named.scatter_add_(1, self.index + 1, torch.ones_like(self.index))
        mask = named[:, 1:] > 0
        if bool((named[:, 1:] > 1).any()) or bool((mask & ~present).any()):
            raise FitPruneError("a Selection names a place twice, or one without a visual token.")
        return mask
