"""Cuts: a `Layout` and a method's choice give the rows that survive, and the layout of what is left. No model is needed."""

import dataclasses
from dataclasses import dataclass

import torch

from fitprune.interface.gather import put, take, true_first
from fitprune.interface.layout import Keep, Layout
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

    def take(self, values: torch.Tensor) -> torch.Tensor:
        """Rows (…, batch, T, d) of the old sequence, or (…, 1, T, d) for all samples, as (…, batch, T', d)."""
        return take(values, self.rows, self.layout.samples)

    def shorten(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (batch, T, hidden_size) of the old sequence as those of the new one, (batch, T', hidden_size)."""
        hidden = self.take(hidden)
        return hidden if self.merged is None else put(hidden, self.layout.position, self.merged.to(hidden.dtype))


def plan_cut(layout: Layout, choice: torch.Tensor | Keep | Selection) -> Cut | None:
    """The cut after which these visual tokens are left; None where all stay as they are.

    The sample of which most is left has no padding then. The others are padded on the left, with rows that they dropped.

    Args:
        layout: of the sequence now.
        choice: bool (batch, n): the tokens that stay, of those present; the same as a `Keep`, for which nothing is read from
            the device; or a `Selection`.
    """
    selection = choice if isinstance(choice, Selection) else None
    kept = choice.keep(layout) if isinstance(choice, Selection) else layout.kept_of(choice)
    if kept.counts == layout.counts and selection is None:
        return None
    host, shorter, ragged = layout.host.after(kept.counts, layout.shape[1])
    # The place of a padding column holds no visual token, and stays unless it is padding itself.
    stays = torch.ones_like(layout.text_after).scatter(1, layout.place, kept.mask)
    flags = layout.flags
    if ragged:
        flags = (flags if layout.valid is not None else torch.cat([flags, stays[:, None]], 1)) & stays[:, None]
        stays = flags[:, 2] if host.real else stays
    rows = stays.view(torch.uint8).argsort(dim=1, stable=True)[:, shorter:]
    flags = flags.gather(2, rows[:, None].expand(-1, flags.shape[1], -1))
    left = dataclasses.replace(layout, flags=flags, host=host)
    return _shortened(left, layout, true_first(kept.mask), rows, selection)


def _shortened(left: Layout, layout: Layout, order: torch.Tensor, rows: torch.Tensor, selection: Selection | None) -> Cut:
    """The cut of `layout` to `rows` (batch, T'); `left` says of these all but which visual tokens stand there.

    These are the first columns of `order`.
    """
    most = max(left.counts)
    named = order[:, :most] if selection is None else selection.index[:, :most].clamp(min=0)
    made = selection.made[:, :most] if selection is not None and selection.made is not None else None
    number = layout.number.gather(1, named)
    left = dataclasses.replace(
        left,
        place=true_first(left.row_mask())[:, :most],
        number=number if made is None else number.masked_fill(made, -1),
        first_row=min((row for row, count in zip(left.host.first, left.counts, strict=True) if count), default=rows.shape[1]),
        reordered=layout.reordered or selection is not None,
    )
    if selection is None:
        return Cut(rows, left)
    merged = None if selection.hidden is None else selection.hidden[:, :most]
    return Cut(put(rows, left.position, layout.place.gather(1, named)), left, merged, made)


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
