"""`Selection`: the visual tokens that go on, where a mask cannot say it: in another order, or merged into one another."""

from dataclasses import dataclass

import torch

from fitprune.errors import FitPruneError
from fitprune.interface.layout import Keep, Layout


@dataclass(frozen=True)
class Selection:
    """The m visual tokens that go on, of the n present, and as what.

    Each has a name: the token in `index`. The i-th selected token is written to the i-th smallest position among the positions
    of the tokens in `index`; text in between stays where it is. With positions "kept" it has the position id of the token
    that it is named by.

    Attributes:
        index: LongTensor (batch, m): columns of the tokens present, each at most once, padded with -1 on the right.
        hidden: (batch, m, hidden_size): what they are from here on; None leaves them as they are.
        made: bool (batch, m): True for a row that stands for no single token (a [CLS] token, a sum of all dropped tokens). It
            takes the position of the dropped token that `index` names, and `Trace.kept` leaves it out.
        counts: how many tokens each sample names, where the host knows; then nothing waits for the device, nor is it checked.
    """

    index: torch.Tensor
    hidden: torch.Tensor | None = None
    made: torch.Tensor | None = None
    counts: tuple[int, ...] | None = None

    def keep(self, layout: Layout) -> Keep:
        """The columns that are named. Raises FitPruneError for one named twice or without a token."""
        batch, n = layout.place.shape
        named = torch.zeros(batch, n + 1, dtype=torch.long, device=layout.place.device)
        named.scatter_add_(1, self.index + 1, torch.ones_like(self.index))
        named = named[:, 1:]
        mask = named > 0
        if self.counts is not None:
            return Keep(mask if layout.full else mask | layout.absent, self.counts)
        # One wait for the counts and for what only a mistake in a method would make.
        counts, wrong = torch.stack([mask.sum(1), ((named > 1) | (mask & ~layout.present)).sum(1)]).tolist()
        if any(wrong):
            raise FitPruneError("a Selection names a column twice, or one without a visual token.")
        return Keep(mask if layout.full else mask | layout.absent, tuple(counts))
