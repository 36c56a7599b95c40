"""What the vision tower made of a batch's images, patch by patch, for methods that rank or merge by it."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from fitprune.errors import UnsupportedModel
from fitprune.scoring.column_sums import BLOCK_ROWS
from fitprune.scoring.precision import in_float32

if TYPE_CHECKING:
    from fitprune.engine.tower import TowerRun


class Vision:
    """The tower's features, queries and keys, and which patch each visual token present is.

    A view is one picture that the tower saw: an image, or the base view or a tile of one. It has P patches in a grid.

    Attributes:
        has_cls: whether the tower has a [CLS] token.
        grid: rows and columns of a view's patches.
        features: (views, P, width), what goes into the projector.
        cls_features: (views, width), the same for [CLS]; None where there is none.
        seats: LongTensor (views, m): where the tower ended with fewer tokens, the patch each is named by; else None.
        base: LongTensor (views,): the first view of the image that each view is of, in tiled models its base view.
        view, patch: LongTensor (batch, n): which patch of which view each token present is, -1 for padding and newlines.
    """

    def __init__(self, run: "TowerRun", number: torch.Tensor, spend: Callable[[int], None]) -> None:
        """`number` (batch, n): the flat number of each token present, view × P + patch; -1 for none."""
        assert run.features is not None
        self._run, self._number, self._spend = run, number, spend
        self.has_cls, self.grid, self.seats = run.tower.has_cls, run.grid, run.seats
        self.features, self.cls_features = run.features, run.cls_features

    # Worked out when asked for: methods look before the first layer, and there is a `Vision` in each.
    @functools.cached_property
    def base(self) -> torch.Tensor:
        each = torch.tensor(self._run.views, device=self._number.device)
        return (each.cumsum(0) - each).repeat_interleave(each)

    @functools.cached_property
    def view(self) -> torch.Tensor:
        return torch.where(self._number >= 0, self._number // self._run.patches, -1)

    @functools.cached_property
    def patch(self) -> torch.Tensor:
        return torch.where(self._number >= 0, self._number % self._run.patches, -1)

    @property
    def views(self) -> int:
        """How many pictures the tower saw."""
        return len(self.features)

    def query(self, layer: int) -> torch.Tensor:
        """(views, heads, tokens, d) of an observed layer, [CLS] first where there is one; negative ones count from the end."""
        return self._run.query[layer % len(self._run.tower.layers)]

    def key(self, layer: int) -> torch.Tensor:
        """As `query`."""
        return self._run.key[layer % len(self._run.tower.layers)]

    @torch.no_grad()
    def cls_attention(self, layer: int) -> torch.Tensor:
        """Attention that [CLS] pays to each patch, (views, heads, P) in float32; [CLS] itself is in the softmax.

        Raises:
            UnsupportedModel: the tower has no [CLS].
        """
        if not self.has_cls:
            raise UnsupportedModel("this model's vision tower has no [CLS] token whose attention could be read.")
        query, key = in_float32(self.query(layer)[:, :, :1]), in_float32(self.key(layer))
        self._spend(key.numel())
        logits = (query @ key.transpose(2, 3)).float() * key.shape[-1] ** -0.5
        return logits.softmax(-1)[:, :, 0, 1:]

    @torch.no_grad()
    def received_attention(self, layer: int) -> torch.Tensor:
        """Attention that each patch receives, mean over heads and over the rows of all patches: (views, P) in float32."""
        query, key = in_float32(self.query(layer)[:, :, int(self.has_cls) :]), in_float32(self.key(layer))
        views, heads, rows, dim = query.shape
        self._spend(views * heads * rows * key.shape[2] * dim)
        total = torch.zeros(views, key.shape[2], dtype=torch.float32, device=key.device)
        for block in query.split(BLOCK_ROWS, 2):
            logits = (block @ key.transpose(2, 3)).float() * dim**-0.5
            total += logits.softmax(-1).sum((1, 2))
        return total[:, int(self.has_cls) :] / (heads * rows)

    def salience(self, layer: int) -> torch.Tensor:
        """(views, P): head-mean [CLS] attention; where there is no [CLS], the mean attention received."""
        return self.cls_attention(layer).mean(1) if self.has_cls else self.received_attention(layer)

    def project(self, features: torch.Tensor, count: int | None = None) -> torch.Tensor:
        """Features (…, width) through the model's projector: (…, hidden_size). Counted as scoring, for `count` rows where not
        all are real."""
        projector = self._run.tower.projector
        rows = features[..., 0].numel() if count is None else count
        self._spend(rows * sum(part.weight.numel() for part in projector.modules() if isinstance(part, nn.Linear)))
        return projector(features)

    def of_patches(self, values: torch.Tensor) -> torch.Tensor:
        """Values (views, P, …) at the tokens present: (batch, n, …), 0 in padding places and at newlines."""
        picked = values.flatten(0, 1)[self._number.clamp(min=0)]
        known = (self._number >= 0).view(*self._number.shape, *[1] * (picked.ndim - 2))
        return picked.masked_fill(~known, 0)


def numbers_of_samples(places: list[torch.Tensor], counts: list[int], mask: torch.Tensor) -> torch.Tensor | None:
    """The flat patch number of every place of images in a batch: LongTensor like `mask` (batch, sequence), -1 elsewhere.

    Args:
        places: per image in prompt order, the flat number of each of its places.
        counts: places of images in each prompt.
        mask: bool (batch, sequence): where they are.

    Returns:
        None where images and places do not match. With beams each sample stands several times in a row, its images once.
    """
    flat = torch.cat(places) if places else mask.new_zeros(0, dtype=torch.long)
    expansion, rest = divmod(sum(counts), max(len(flat), 1))
    own = counts[:: max(expansion, 1)]
    if rest or not expansion or sum(own) != len(flat) or [c for c in own for _ in range(expansion)] != counts:
        return None
    flat = torch.cat([part for part in flat.split(own) for _ in range(expansion)]).to(mask.device)
    numbers = torch.full(mask.shape, -1, dtype=torch.long, device=mask.device)
    return numbers.masked_scatter(mask, flat)
