"""`Layout`: where each sample's visual tokens stand at one point of a prefill."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from fitprune.interface.gather import put, take, true_first
from fitprune.models.execution import moved


@dataclass(frozen=True)
class Keep:
    """The visual tokens that stay, where the host knows how many these are: then nothing waits for the device to find out.

    Attributes:
        mask: bool (batch, n), True in padding columns.
        counts: per sample, how many are True.
    """

    mask: torch.Tensor
    counts: tuple[int, ...]


@dataclass(frozen=True)
class HostCounts:
    """What the host knows of a `Layout`, per sample.

    Attributes:
        present: visual tokens present.
        total: those in the prompt.
        real: rows without padding on the left; empty where there is other padding, which stays where it is.
        first: the row of the first one present; of none, what it would be.
        text: rows of `text_after`.
        text_from: of the prompt, for all samples at once: the first row from which on none has a visual token.
    """

    present: tuple[int, ...]
    total: tuple[int, ...]
    real: tuple[int, ...]
    first: tuple[int, ...]
    text: tuple[int, ...]
    text_from: int

    def after(self, left: tuple[int, ...], length: int) -> tuple["HostCounts", int, bool]:
        """Once `left` are left of a sequence of `length` rows; by how many rows it is shorter then; whether that is not what
        each sample drops. Padding goes to the left, where the sample with most rows needs none."""
        dropped = [before - after for before, after in zip(self.present, left, strict=True)]
        real = tuple(rows - gone for rows, gone in zip(self.real, dropped, strict=False))
        shorter = length - max(real) if real else min(dropped)
        first = tuple(row + gone - shorter for row, gone in zip(self.first, dropped, strict=True))
        return dataclasses.replace(self, present=left, real=real, first=first), shorter, set(dropped) != {shorter}


@dataclass(frozen=True)
class Layout:
    """Where the visual tokens of a padded batch stand. n is the largest count in the batch, T the length of the sequence.

    A layout holds no hidden states and knows no model. A cut makes a new one (`fitprune.engine.cuts`). What the host knows is
    not asked of the device again, nor are padding columns masked where there are none: each would be an operation a layer.

    Attributes:
        place: LongTensor (batch, n): the row of each visual token in the sequence, ascending; in padding columns, on the right,
            a row that holds none.
        number: LongTensor (batch, n): its index among the prompt's visual tokens, -1 for a row that stands for no single token
            (`Selection.made`); anything in padding columns.
        total: (batch,) visual tokens in the prompt.
        flags: (batch, 2 or 3, T) bool: `text_after`, `row_mask()` and, unless all tokens are real, `valid`.
        first_row: no visual token stands before this row, in any sample.
        host: what the host knows of these.
        reordered: whether a `Selection` was applied, so that `original` need not ascend.
        shift: (batch,), by how much the position id of a token decoded after this sequence is smaller than after the unpruned
            prompt; None for nothing, where no cut has numbered the position ids anew.
        samples: LongTensor (batch, 1): 0, 1, …, as `take` uses it; None where nobody has made it yet.
    """

    place: torch.Tensor
    number: torch.Tensor
    total: torch.Tensor
    flags: torch.Tensor
    first_row: int
    host: HostCounts
    reordered: bool = False
    shift: torch.Tensor | None = None
    samples: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Layout":
        """The same layout, its tensors on `device`."""
        names = ("place", "number", "total", "flags", "shift", "samples")
        return dataclasses.replace(self, **moved({name: getattr(self, name) for name in names}, device))

    # Worked out when first asked for, once per layout: most layers do not change it.
    @functools.cached_property
    def present(self) -> torch.Tensor:
        """(batch, n) bool: which columns hold a token."""
        return self._on_device(self._column < self._counted(self.counts))

    @functools.cached_property
    def absent(self) -> torch.Tensor:
        """(batch, n) bool: which columns are padding."""
        return self._on_device(self._column >= self._counted(self.counts))

    @functools.cached_property
    def position(self) -> torch.Tensor:
        """LongTensor (batch, n): `place`, -1 in padding columns."""
        return self.place if self.full else self.place.masked_fill(self.absent, -1)

    @functools.cached_property
    def original(self) -> torch.Tensor:
        """LongTensor (batch, n): `number`, -1 in padding columns."""
        return self.number if self.full else self.number.masked_fill(self.absent, -1)

    @functools.cached_property
    def count(self) -> torch.Tensor:
        """(batch,) visual tokens present."""
        return self._on_device(self._counted(self.counts)[:, 0])

    @property
    def counts(self) -> tuple[int, ...]:
        """Per sample, the visual tokens present, on the host."""
        return self.host.present

    @property
    def totals(self) -> tuple[int, ...]:
        """Per sample, the visual tokens in the prompt, on the host."""
        return self.host.total

    @functools.cached_property
    def full(self) -> bool:
        """Whether every column holds a token."""
        return all(count == self.place.shape[1] for count in self.counts)

    @property
    def lacks_text(self) -> bool:
        """Whether a sample may have visual tokens, and no text after its last image."""
        return any(total and not text for total, text in zip(self.host.total, self.host.text, strict=True))

    @property
    def valid(self) -> torch.Tensor | None:
        """(batch, T) bool, False for padding; None where all tokens are real."""
        return self.flags[:, 2] if self.flags.shape[1] > 2 else None

    @property
    def roles(self) -> torch.Tensor:
        """(batch, 2, T) bool: `text_after` and `row_mask()`."""
        return self.flags[:, :2]

    @property
    def text_after(self) -> torch.Tensor:
        """(batch, T) bool: real text tokens after the sample's last image; newline tokens are no text."""
        return self.flags[:, 0]

    def row_mask(self) -> torch.Tensor:
        """(batch, T) bool: which rows hold visual tokens."""
        return self.flags[:, 1]

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
        return self.flags.shape[0], self.flags.shape[2]

    @property
    def empty(self) -> bool:
        """Whether no sample has a visual token."""
        return self.place.shape[1] == 0

    def columns(self, values: torch.Tensor) -> torch.Tensor:
        """Pick from (batch, …, T) the values at the visual tokens: (batch, …, n), 0 in padding columns."""
        between = [1] * (values.ndim - 2)
        picked = values.gather(-1, self.place.view(len(values), *between, -1).expand(*values.shape[:-1], -1))
        return picked if self.full else picked.masked_fill(self.absent.view(len(values), *between, -1), 0)

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """Pick from (batch, T, d) the rows of the visual tokens: (batch, n, d), 0 in padding columns."""
        picked = take(values, self.place, self.samples)
        return picked if self.full else picked.masked_fill(self.absent[..., None], 0)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse of `columns`: values (batch, n) of the visual tokens in their rows, (batch, T), 0 in all others."""
        return put(values.new_zeros(self.shape), self.position, values)

    def last_row(self) -> torch.Tensor:
        """LongTensor (batch,): the row of each sample's last real token."""
        batch, length = self.shape
        if self.valid is None:
            return torch.full((batch,), length - 1, device=self.place.device)
        return length - 1 - self.valid.flip(1).long().argmax(1)

    def position_ids(self) -> torch.Tensor:
        """LongTensor (batch, T): each sample's real tokens numbered 0, 1, …; padding before them has 0."""
        real = torch.ones_like(self.text_after) if self.valid is None else self.valid
        return (real.long().cumsum(1) - 1).clamp(min=0)

    def kept_of(self, choice: "torch.Tensor | Keep") -> Keep:
        """A method's choice, bool (batch, n), among the tokens present. Of a mask alone the counts are read from the device."""
        if isinstance(choice, Keep):
            return choice
        mask = choice if self.full else choice | self.absent
        width = mask.shape[1]
        return Keep(mask, tuple(true - width + count for true, count in zip(mask.sum(1).tolist(), self.counts, strict=True)))

    def narrowed(self, choice: "torch.Tensor | Keep") -> "Layout":
        """The layout of the same sequence in which only the visual tokens of the choice, bool (batch, n), count as such."""
        keep = self.kept_of(choice)
        order = true_first(keep.mask)[:, : max(keep.counts)]
        place, number = (values.gather(1, order) for values in (self.place, self.number))
        flags = torch.cat([self.flags[:, :1], self.spread(keep.mask)[:, None], self.flags[:, 2:]], 1)
        return dataclasses.replace(
            self, place=place, number=number, flags=flags, host=dataclasses.replace(self.host, present=keep.counts)
        )

    def keep_counts(self, score: torch.Tensor, keep: Sequence[int]) -> Keep:
        """`keep_highest` of numbers that the host knows, one per sample."""
        kept = tuple(min(max(asked, 0), count) for asked, count in zip(keep, self.counts, strict=True))
        stays = self._on_device(self._column >= self._counted(self.counts) - self._counted(kept))
        # All columns are written.
        return Keep(stays.scatter(1, self._rising(score), stays), kept)

    def keep_highest(self, score: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Keep in each sample its `keep` tokens of highest score; of equals, the later ones.

        Args:
            score: (batch, n), finite.
            keep: LongTensor (batch,), clamped to the tokens present.

        Returns:
            (batch, n) bool, False in padding columns.
        """
        leading = torch.arange(self.place.shape[1], device=score.device) >= (self.count - keep)[:, None]
        mask = self.present.scatter(1, self._rising(score), leading)
        return mask if self.full else mask & self.present

    def _rising(self, score: torch.Tensor) -> torch.Tensor:
        """LongTensor (batch, n): the columns by rising score, equals in order; padding comes last."""
        return (score if self.full else score.masked_fill(self.absent, float("inf"))).argsort(dim=1, stable=True)

    @property
    def _column(self) -> np.ndarray:
        return np.arange(self.place.shape[1])

    @staticmethod
    def _counted(counts: Sequence[int]) -> np.ndarray:
        return np.array(counts, dtype=np.int64)[:, None]

    def _on_device(self, known: np.ndarray) -> torch.Tensor:
        """What the host knows, as a tensor; the copy is not waited for."""
        return torch.from_numpy(known).to(self.place.device, non_blocking=True)


def prompt_layout(visual: torch.Tensor, image: torch.Tensor, real: torch.Tensor | None) -> Layout:
    """The layout of a whole prompt. This is where a prefill waits for the device: the host reads the masks, works out what
    follows from them, and hands it back.

    Args:
        visual: bool (batch, T): the visual tokens that may be pruned.
        image: bool (batch, T): the positions of images, newline tokens included; padding is in neither.
        real: bool (batch, T), False for padding; None where all tokens are real.
    """
    batch, length = visual.shape
    masks = torch.stack([visual, image] if real is None else [visual, image, real]).cpu().numpy()
    at, reals = masks[0], masks[2] if real is not None else np.ones_like(masks[0])
    total, number = at.sum(1), np.arange(max(length, 1))
    n = int(total.max(initial=0))
    present = number[:n] < total[:, None]
    # A stable sort brings each sample's visual positions to the front, in order.
    place = np.argsort(~at, axis=1, kind="stable")[:, :n]
    last = length - 1 - masks[1][:, ::-1].argmax(1)
    after = (number[:length] > last[:, None]) & reals & (total > 0)[:, None]
    first = np.where(total > 0, at.argmax(1), length)
    index = np.broadcast_to(number[:n], (batch, n))
    numbers = np.concatenate([place, index, total[:, None], np.arange(batch)[:, None]], 1)
    planes = np.stack([after, at] if reals.all() else [after, at, reals], 1)
    packed, flags = (torch.from_numpy(made).to(visual.device) for made in (numbers, planes))
    rows = reals.sum(1)
    rows = rows if (rows == length - reals.argmax(1)).all() else rows[:0]
    present_counts, rows, firsts, texts = (tuple(counts.tolist()) for counts in (total, rows, first, after.sum(1)))
    return Layout(
        place=packed[:, :n],
        number=packed[:, n : 2 * n],
        total=packed[:, 2 * n],
        flags=flags,
        first_row=min(firsts),
        host=HostCounts(present_counts, present_counts, rows, firsts, texts, int(place.max(where=present, initial=-1)) + 1),
        samples=packed[:, 2 * n + 1 :],
    )


class HasLayout(Protocol):
    """What knows where visual tokens stand, such as `VisualTokens`."""

    @property
    def layout(self) -> Layout: ...
