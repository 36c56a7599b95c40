"""`Layout`: where each sample's visual tokens stand at one point of a prefill."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Protocol

import torch

from fitprune.interface.gather import put, take
from fitprune.models.execution import moved


@dataclass(frozen=True)
class Layout:
    """Where the visual tokens of a padded batch stand. n is the largest count in the batch, T the length of the sequence.

    A layout holds no hidden states and knows no model. A cut makes a new one (`fitprune.engine.cuts`).

    Attributes:
        position: LongTensor (batch, n): the row of each visual token in the sequence, ascending, padded with -1 on the right.
        original: LongTensor (batch, n): its index among the prompt's visual tokens, -1 in padding and for a row that stands
            for no single token (`Selection.made`).
        total: (batch,) visual tokens in the prompt.
        valid: (batch, T) bool, False for padding; None where all tokens are real.
        text_after: (batch, T) bool: real text tokens after the sample's last image; newline tokens are no text.
        first_row: no visual token stands before this row, in any sample.
        reordered: whether a `Selection` was applied, so that `original` need not ascend.
        shift: (batch,), by how much the position id of a token decoded after this sequence is smaller than after the unpruned
            prompt; None for nothing, where no cut has numbered the position ids anew.
    """

    position: torch.Tensor
    original: torch.Tensor
    total: torch.Tensor
    valid: torch.Tensor | None
    text_after: torch.Tensor
    first_row: int
    reordered: bool = False
    shift: torch.Tensor | None = None

    @classmethod
    def of_prompt(cls, visual: torch.Tensor, image: torch.Tensor, real: torch.Tensor | None) -> "Layout":
        """The layout of a whole prompt. This is where a prefill reads counts from the device.

        Args:
            visual: bool (batch, T): the visual tokens that may be pruned.
            image: bool (batch, T): the positions of images, newline tokens included; padding is in neither.
            real: bool (batch, T), False for padding; None where all tokens are real.
        """
        batch, length = visual.shape
        device = visual.device
        total = visual.sum(1)
        n = int(total.max())
        # A stable sort brings each sample's visual positions to the front, in order.
        position = (~visual).long().argsort(dim=1, stable=True)[:, :n]
        present = torch.arange(n, device=device)[None] < total[:, None]
        last = length - 1 - image.flip(1).byte().argmax(1)
        after = torch.arange(length, device=device)[None] > last[:, None]
        return cls(
            position=position.masked_fill(~present, -1),
            original=torch.arange(n, device=device).expand(batch, n).masked_fill(~present, -1),
            total=total,
            valid=None if real is None or bool(real.all()) else real,
            text_after=(after if real is None else after & real) & (total > 0)[:, None],
            first_row=int(position.masked_fill(~present, length).min()) if n else length,
        )

    def to(self, device: torch.device) -> "Layout":
        """The same layout, its tensors on `device`."""
        names = ("position", "original", "total", "valid", "text_after", "shift")
        return dataclasses.replace(self, **moved({name: getattr(self, name) for name in names}, device))

    # Worked out when first asked for, once per layout: most layers do not change it.
    @functools.cached_property
    def present(self) -> torch.Tensor:
        """(batch, n) bool: which columns hold a token."""
        return self.position >= 0

    @functools.cached_property
    def count(self) -> torch.Tensor:
        """(batch,) visual tokens present."""
        return self.present.sum(1)

    @functools.cached_property
    def removed(self) -> torch.Tensor:
        """(batch,) visual tokens of the prompt that have left."""
        return self.total - self.count

    @functools.cached_property
    def kept(self) -> torch.Tensor:
        """LongTensor (batch, kept): the original indices of the tokens present, ascending, padded with -1 on the right."""
        if not self.reordered:
            return self.original
        last = torch.iinfo(torch.long).max
        kept = self.original.masked_fill(self.original < 0, last).sort(dim=1).values
        most = int((kept < last).sum(1).max()) if kept.shape[1] else 0
        return kept.masked_fill(kept == last, -1)[:, :most]

    @property
    def shape(self) -> tuple[int, int]:
        """The sequence's (batch, T)."""
        return self.text_after.shape[0], self.text_after.shape[1]

    @property
    def empty(self) -> bool:
        """Whether no sample has a visual token."""
        return self.position.shape[1] == 0

    def columns(self, values: torch.Tensor) -> torch.Tensor:
        """Pick from (batch, T) the values at the visual tokens: (batch, n), 0 in padding columns."""
        return values.gather(1, self.position.clamp(min=0)).masked_fill(~self.present, 0)

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """Pick from (batch, T, d) the rows of the visual tokens: (batch, n, d), 0 in padding columns."""
        return take(values, self.position.clamp(min=0)).masked_fill(~self.present[..., None], 0)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse of `columns`: values (batch, n) of the visual tokens in their rows, (batch, T), 0 in all others."""
        return put(values.new_zeros(self.shape), self.position, values)

    def row_mask(self) -> torch.Tensor:
        """(batch, T) bool: which rows hold visual tokens."""
        batch, length = self.shape
        # Padding falls on column 0 of an extra column that is cut off again.
        rows = torch.zeros(batch, length + 1, dtype=torch.bool, device=self.position.device)
        return rows.scatter(1, self.position + 1, True)[:, 1:]

    def last_row(self) -> torch.Tensor:
        """LongTensor (batch,): the row of each sample's last real token."""
        batch, length = self.shape
        if self.valid is None:
            return torch.full((batch,), length - 1, device=self.position.device)
        return length - 1 - self.valid.flip(1).long().argmax(1)

    def position_ids(self) -> torch.Tensor:
        """LongTensor (batch, T): each sample's real tokens numbered 0, 1, …; padding before them has 0."""
        real = torch.ones_like(self.text_after) if self.valid is None else self.valid
        return (real.long().cumsum(1) - 1).clamp(min=0)

    def narrowed(self, keep: torch.Tensor) -> "Layout":
        """The layout of the same sequence in which only the visual tokens in `keep`, bool (batch, n), count as such."""
        keep = keep & self.present
        order = (~keep).byte().argsort(dim=1, stable=True)[:, : int(keep.sum(1).max())]
        left = keep.gather(1, order)
        position, original = (values.gather(1, order).masked_fill(~left, -1) for values in (self.position, self.original))
        return dataclasses.replace(self, position=position, original=original)

    def keep_highest(self, score: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Keep in each sample its `keep` tokens of highest score; of equals, the later ones.

        Args:
            score: (batch, n), finite.
            keep: LongTensor (batch,), clamped to the tokens present.

        Returns:
            (batch, n) bool, False in padding columns.
        """
        order = score.masked_fill(~self.present, float("inf")).argsort(dim=1, stable=True)
        rank = torch.empty_like(order).scatter(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
        drop = (self.count - keep).clamp(min=0)
        return (rank >= drop[:, None]) & self.present


class HasLayout(Protocol):
    """What knows where visual tokens stand, such as `VisualTokens`."""

    @property
    def layout(self) -> Layout: ...
