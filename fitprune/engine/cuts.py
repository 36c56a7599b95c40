"""Cuts: a `Layout` and a method's choice give the rows that survive, and the layout of what is left. No model is needed."""

from dataclasses import dataclass

import torch

from fitprune.interface.gather import put, take
from fitprune.interface.layout import HostCounts, Keep, Layout
from fitprune.interface.selection import Selection
from fitprune.interface.vision import Vision


@dataclass(frozen=True)
class Cut:
    """One shortening of a sequence.

    Attributes:
        rows: LongTensor (batch, T'): for each row of the new sequence, the row of the old one that it is taken from.
        layout: the layout of the new sequence.
        merged: (batch, n', hidden_size): new hidden states of the visual tokens left; None where they keep theirs.
        made: bool (batch, n'): see `Selection.made`; None for none.
    """

    rows: torch.Tensor
    layout: Layout
    merged: torch.Tensor | None = None
    made: torch.Tensor | None = None

    def shorten(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (batch, T, hidden_size) of the old sequence as those of the new one, (batch, T', hidden_size)."""
        hidden = take(hidden, self.rows)
        return hidden if self.merged is None else put(hidden, self.layout.position, self.merged.to(hidden.dtype))


def plan_cut(layout: Layout, choice: torch.Tensor | Keep | Selection) -> Cut | None:
    """The cut after which these visual tokens are left; None where all stay as they are.

    A sample that drops fewer tokens than others stays longer. The others are padded on the left, with rows that they dropped.

    Args:
        layout: of the sequence now.
        choice: bool (batch, n): the tokens that stay, of those present; the same as a `Keep`, for which nothing is read from
            the device; or a `Selection`.
    """
    selection = choice if isinstance(choice, Selection) else None
    kept = choice.keep(layout.present) if isinstance(choice, Selection) else layout.kept_of(choice)
    dropped = [before - after for before, after in zip(layout.counts, kept.counts, strict=True)]
    low, high = min(dropped), max(dropped)
    if high == 0 and selection is None:
        return None
    keep, leaving = kept.mask, layout.present & ~kept.mask
    batch, length = layout.shape
    stays = torch.ones(batch, length + 1, dtype=torch.bool, device=keep.device)
    # What does not leave is written to an extra column that is cut off.
    stays = stays.scatter(1, torch.where(leaving, layout.position, length), False)[:, :length]
    rows = stays.byte().argsort(dim=1, stable=True)[:, low:]
    if layout.valid is None and low == high:
        valid = None
    else:
        valid = (stays if layout.valid is None else stays & layout.valid).gather(1, rows)
    host = None if layout.host is None else layout.host.after(kept.counts, low)
    return _shortened(layout, kept, rows, valid, selection, host)


def _shortened(
    layout: Layout,
    kept: Keep,
    rows: torch.Tensor,
    valid: torch.Tensor | None,
    selection: Selection | None,
    host: HostCounts | None,
) -> Cut:
    """The cut to `rows` (batch, T'), of which `valid` are no padding, with the visual tokens `kept`."""
    length, keep, n = rows.shape[1], kept.mask, max(kept.counts)
    new_row = torch.zeros(layout.shape, dtype=torch.long, device=rows.device)
    new_row.scatter_(1, rows, torch.arange(length, device=rows.device).expand_as(rows))
    order = (~keep).byte().argsort(dim=1, stable=True)[:, :n]
    present = keep.gather(1, order)
    position = new_row.gather(1, layout.position.gather(1, order).clamp(min=0)).masked_fill(~present, -1)
    sources, original, merged = rows, layout.original.gather(1, order), None
    made = None
    if selection is not None:
        named = selection.index[:, :n].clamp(min=0)
        sources = put(rows, position, layout.position.gather(1, named))
        original = layout.original.gather(1, named)
        if selection.made is not None:
            made = selection.made[:, :n]
            original = original.masked_fill(made, -1)
        if selection.hidden is not None:
            merged = selection.hidden[:, :n]
    left = Layout(
        position=position,
        original=original.masked_fill(~present, -1),
        total=layout.total,
        valid=valid,
        text_after=layout.text_after.gather(1, rows),
        first_row=_first_row(position, present, host, length),
        reordered=layout.reordered or selection is not None,
        shift=layout.shift,
        host=host,
    )
    return Cut(sources, left, merged, made)


def _first_row(position: torch.Tensor, present: torch.Tensor, host: HostCounts | None, length: int) -> int:
    """The first row of a visual token in a sequence of that length; the length where there is none."""
    if host is not None:
        return min((row for row, count in zip(host.first, host.present, strict=True) if count), default=length)
    return int(position.masked_fill(~present, length).min()) if position.shape[1] else length


def tower_choice(vision: Vision, *, in_prompt_order: bool) -> torch.Tensor | Selection:
    """The choice that drops the prompt's positions which the tower, having ended with fewer tokens, left empty.

    Args:
        vision: with a `patch_index`.
        in_prompt_order: the tokens go on in the order of the prompt, row by row across tiles; else in that of the tower, view
            by view.
    """
    assert vision.patch_index is not None
    views, count = vision.patch_index.shape
    rank = vision.patch_index.new_full((views, vision.grid[0] * vision.grid[1]), -1)
    rank.scatter_(1, vision.patch_index, torch.arange(count, device=rank.device).expand(views, -1))
    own = vision.of_patches(rank + 1) - 1
    if in_prompt_order:
        return own >= 0
    last = views * count
    order = torch.where(own >= 0, vision.view * count + own, last).sort(dim=1)
    most = int((order.values < last).sum(1).max())
    return Selection(order.indices.masked_fill(order.values == last, -1)[:, :most])
