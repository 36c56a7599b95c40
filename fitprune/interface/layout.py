"""`Layout`: where each sample's visual tokens stand at one point of a prefill."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from fitprune.interface.gather import put, take
from fitprune.models.execution import moved


@dataclass(frozen=True)
class Keep:
    """The visual tokens that stay, where the host knows how many these are: then nothing waits for the device to find out.

    Attributes:
        mask: bool (batch, n), False in padding columns.
        counts: per sample, how many are True.
    """

    mask: torch.Tensor
    counts: tuple[int, ...]


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
        host: the same numbers on the host: per sample the visual tokens present, those in the prompt, and the row of the first
            one present; None where they must be read from the device.
    """

    position: torch.Tensor
    original: torch.Tensor
    total: torch.Tensor
    valid: torch.Tensor | None
    text_after: torch.Tensor
    first_row: int
    reordered: bool = False
    shift: torch.Tensor | None = None
    host: "HostCounts | None" = None

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
        reals = torch.full_like(total, length) if real is None else real.sum(1)
        firsts = visual.byte().argmax(1).masked_fill(total == 0, length)
        # The one wait for all of them.
        totals, first_rows, real_counts = torch.stack([total, firsts, reals]).tolist()
        n = max(totals)
        # A stable sort brings each sample's visual positions to the front, in order.
        position = (~visual).long().argsort(dim=1, stable=True)[:, :n]
        present = torch.arange(n, device=device)[None] < total[:, None]
        last = length - 1 - image.flip(1).byte().argmax(1)
        after = torch.arange(length, device=device)[None] > last[:, None]
        return cls(
            position=position.masked_fill(~present, -1),
            original=torch.arange(n, device=device).expand(batch, n).masked_fill(~present, -1),
            total=total,
            valid=None if min(real_counts) == length else real,
            text_after=(after if real is None else after & real) & (total > 0)[:, None],
            first_row=min(first_rows),
            host=HostCounts(tuple(totals), tuple(totals), tuple(first_rows)),
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

    @property
    def counts(self) -> tuple[int, ...]:
        """Per sample, the visual tokens present, on the host."""
        return tuple(self.count.tolist()) if self.host is None else self.host.present

    @property
    def totals(self) -> tuple[int, ...]:
        """Per sample, the visual tokens in the prompt, on the host."""
        return tuple(self.total.tolist()) if self.host is None else self.host.total

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

    def kept_of(self, choice: "torch.Tensor | Keep") -> Keep:
        """A method's choice, bool (batch, n), among the tokens present. Of a mask alone the counts are read from the device."""
        if isinstance(choice, Keep):
            return choice
        mask = choice & self.present
        return Keep(mask, tuple(mask.sum(1).tolist()))

    def narrowed(self, choice: "torch.Tensor | Keep") -> "Layout":
        """The layout of the same sequence in which only the visual tokens of the choice, bool (batch, n), count as such."""
        keep = self.kept_of(choice)
        order = (~keep.mask).byte().argsort(dim=1, stable=True)[:, : max(keep.counts)]
        left = keep.mask.gather(1, order)
        position, original = (values.gather(1, order).masked_fill(~left, -1) for values in (self.position, self.original))
        host = None if self.host is None else dataclasses.replace(self.host, present=keep.counts)
        return dataclasses.replace(self, position=position, original=original, host=host)

    def keep_counts(self, score: torch.Tensor, keep: Sequence[int]) -> Keep:
        """`keep_highest` of numbers that the host knows, one per sample."""
        counts = self.counts
        kept = tuple(min(max(asked, 0), count) for asked, count in zip(keep, counts, strict=True))
        drop = [count - left for count, left in zip(counts, kept, strict=True)]
        if len(set(drop)) == 1:
            return Keep((self._rank(score) >= drop[0]) & self.present, kept)
        limits = torch.cat([torch.full((1, 1), number, device=score.device) for number in drop])
        return Keep((self._rank(score) >= limits) & self.present, kept)

    def keep_highest(self, score: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Keep in each sample its `keep` tokens of highest score; of equals, the later ones.

        Args:
            score: (batch, n), finite.
            keep: LongTensor (batch,), clamped to the tokens present.

        Returns:
            (batch, n) bool, False in padding columns.
        """
        return (self._rank(score) >= (self.count - keep).clamp(min=0)[:, None]) & self.present

    def _rank(self, score: torch.Tensor) -> torch.Tensor:
        """LongTensor (batch, n): each token's rank by rising score; padding comes last."""
        order = score.masked_fill(~self.present, float("inf")).argsort(dim=1, stable=True)
        return torch.empty_like(order).scatter(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))


@dataclass(frozen=True)
class HostCounts:
    """What the host knows of a `Layout`, per sample.

    Attributes:
        present: visual tokens present.
        total: those in the prompt.
        first: the row of the first one present; of none, what it would be.
    """

    present: tuple[int, ...]
    total: tuple[int, ...]
    first: tuple[int, ...]

    def after(self, left: tuple[int, ...], fewest: int) -> "HostCounts":
        """Once `left` are left, in a sequence that is shorter by the `fewest` that a sample drops: the others are padded on the
        left."""
        dropped = (before - after for before, after in zip(self.present, left, strict=True))
        first = tuple(row + gone - fewest for row, gone in zip(self.first, dropped, strict=True))
        return HostCounts(left, self.total, first)


class HasLayout(Protocol):
    """What knows where visual tokens stand, such as `VisualTokens`."""

    @property
    def layout(self) -> Layout: ...
