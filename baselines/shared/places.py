"""Places of tokens in padded batches: from masks, to rows, to a `Selection`."""

import torch

from fitprune import Selection
from fitprune.interface.gather import take


def places_of(mask: torch.Tensor) -> torch.Tensor:
    """LongTensor (batch, most): the places where `mask` (batch, n) is True, ascending, padded with -1 on the right."""
    n = mask.shape[1]
    places = torch.where(mask, torch.arange(n, device=mask.device), n).sort(dim=1).values[:, : int(mask.sum(1).max())]
    return places.masked_fill(places == n, -1)


def rows_at(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rows of (batch, n, d) at `places` (batch, m): (batch, m, d); some row where a place is -1."""
    return take(values, places.clamp(min=0))


def selection(index: torch.Tensor, hidden: torch.Tensor, made: torch.Tensor) -> Selection:
    """A `Selection` of those rows (batch, m, …) whose `index` is not -1, in their order."""
    filled = index >= 0
    order = (~filled).byte().argsort(dim=1, stable=True)[:, : int(filled.sum(1).max())]
    return Selection(index.gather(1, order), rows_at(hidden, order), made.gather(1, order) & filled.gather(1, order))
