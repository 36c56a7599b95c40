"""Tools for padded batches: masks and indices, orders and ranks, sums by group, `Selection`s.

The tokens of a batch stand in rows (batch, n). An index of -1 means no token, and padding stands on the right. Of equal
scores, the earlier token counts as the higher.
"""

import torch

from fitprune import Selection
from fitprune.interface.gather import true_first


def marked(index: torch.Tensor, n: int) -> torch.Tensor:
    """Bool (batch, n): True at the tokens that `index`, LongTensor (batch, m), names; -1 names none."""
    # -1 falls on an extra first column, which is cut off.
    return torch.zeros(len(index), n + 1, dtype=torch.bool, device=index.device).scatter(1, index + 1, True)[:, 1:]


def group_sums(values: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """Sums (batch, groups) of `values` (batch, n) over the tokens of each group; `group` LongTensor (batch, n), -1 for none."""
    # -1 falls on an extra first column, which is cut off.
    return values.new_zeros(len(values), groups + 1).scatter_add(1, group + 1, values)[:, 1:]


def indices_of(mask: torch.Tensor, most: int | None = None) -> torch.Tensor:
    """LongTensor (batch, most): where `mask` (batch, n) is True, ascending, padded with -1. Without `most`, which the host may
    know, it is read from the device."""
    order = true_first(mask)[:, : int(mask.sum(1).max()) if most is None else most]
    return order.masked_fill(~mask.gather(1, order), -1)


def rows_at(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows (batch, m, …) of `values` (batch, n, …) at `index` (batch, m); an arbitrary row where the index is -1."""
    samples = torch.arange(len(index), device=index.device)[:, None]
    return values[samples, index.clamp(min=0)]


def descending(score: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """The order, LongTensor (batch, n), of the tokens `among`, bool (batch, n), by falling score; the others come last."""
    return score.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True)


def ranks(order: torch.Tensor) -> torch.Tensor:
    """LongTensor (batch, n): the rank of each token in an `order` (batch, n) of all n, from 0."""
    return torch.empty_like(order).scatter(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))


def highest(score: torch.Tensor, among: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Bool (batch, n): the `count` (batch,) tokens of highest score `among`, bool (batch, n), or all of these if fewer."""
    leading = torch.arange(score.shape[1], device=score.device) < count[:, None]
    return torch.zeros_like(among).scatter(1, descending(score, among), leading) & among


def highest_indices(score: torch.Tensor, among: torch.Tensor, count: int) -> torch.Tensor:
    """LongTensor (batch, up to `count`): indices of the tokens of highest score `among`, highest first, padded with -1."""
    order = descending(score, among)[:, :count]
    return order.masked_fill(~among.gather(1, order), -1)


def ranks_in_groups(score: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """LongTensor (batch, n): the rank of each token by falling score in its group, from 0.

    `group` is a LongTensor (batch, n) with values below `groups`; the rank of a token of no group (-1) means nothing.
    """
    order = descending(score, group >= 0)
    order = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))
    sizes = group_sums(torch.ones_like(group), group, groups)
    start = torch.cat([(group < 0).sum(1, keepdim=True), sizes], 1).cumsum(1)
    return ranks(order) - start.gather(1, group.clamp(min=0))


def first_picks(picks: list[torch.Tensor], keep: torch.Tensor, n: int) -> torch.Tensor:
    """Bool (batch, n): the first `keep` (batch,) of a greedy choice's `picks`, one LongTensor (batch,) per step."""
    if not picks:
        return torch.zeros(len(keep), n, dtype=torch.bool, device=keep.device)
    picked = torch.stack(picks, 1)
    return marked(picked.masked_fill(torch.arange(len(picks), device=keep.device) >= keep[:, None], -1), n)


def selection(index: torch.Tensor, hidden: torch.Tensor, made: torch.Tensor) -> Selection:
    """The `Selection` of the rows whose `index` is not -1, in their order.

    Args:
        index, made: (batch, m), see `Selection`; index is -1 anywhere in a row.
        hidden: (batch, m, hidden_size).
    """
    filled = index >= 0
    order = true_first(filled)[:, : int(filled.sum(1).max())]
    return Selection(index.gather(1, order), rows_at(hidden, order), made.gather(1, order) & filled.gather(1, order))
