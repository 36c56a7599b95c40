"""`Vision`: what the vision tower made of a batch's images, patch by patch, for methods that rank or merge by it."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from fitprune.errors import UnsupportedModel
from fitprune.interface.tower import TowerRecord
from fitprune.models.execution import moved, run_module
from fitprune.scoring.column_sums import BLOCK_ROWS
from fitprune.scoring.macs import Macs
from fitprune.scoring.precision import in_float32


class Vision:
    """The tower's features, queries and keys, and which patch each visual token present is.

    A view is one picture that the tower saw: an image, or the base view or a tile of one. It has P patches in a grid.

    Attributes:
        has_cls: whether the tower has a [CLS] token.
        grid: rows and columns of a view's patches.
        features: (views, P, width), the input of the projector.
        cls_features: (views, width), the same for [CLS]; None where there is none.
        patch_index: LongTensor (views, m): the patch that each feature is named by, where the tower ended with fewer tokens
            than patches; else None.
        base_view: LongTensor (views,): the first view of the image that each view is of. In tiled models it is the base view.
        view, patch: LongTensor (batch, n): the view, and the patch of it, of each token present; -1 for padding and newlines.
    """

    def __init__(self, record: TowerRecord, global_index: torch.Tensor, spend: Callable[[Macs], None]) -> None:
        """`global_index` (batch, n): `view * P + patch` of each token present; -1 for padding and newlines."""
        self._record, self._global_index, self._spend = record, global_index, spend
        self.has_cls, self.grid = record.tower.has_cls, record.grid
        # The tower may lie on another device than the decoder's first layer.
        self.features, self.cls_features, self.patch_index = moved(
            (record.features, record.cls_features, record.patch_index), global_index.device
        )

    # Worked out when asked for: a method that looks at features alone needs none of these.
    @functools.cached_property
    def base_view(self) -> torch.Tensor:
        each = torch.tensor(self._record.views, device=self._global_index.device)
        return (each.cumsum(0) - each).repeat_interleave(each)

    @functools.cached_property
    def view(self) -> torch.Tensor:
        return torch.where(self._global_index >= 0, self._global_index // self._record.patches, -1)

    @functools.cached_property
    def patch(self) -> torch.Tensor:
        return torch.where(self._global_index >= 0, self._global_index % self._record.patches, -1)

    @functools.cached_property
    def in_prompt(self) -> torch.Tensor:
        """Bool (views, P): the patches that a token present stands for; padding inside tiles is none."""
        # -1 falls on an extra first place, which is cut off.
        found = torch.zeros(1 + self.views * self._record.patches, dtype=torch.bool, device=self._global_index.device)
        return found.index_fill(0, (self._global_index + 1).flatten(), True)[1:].view(self.views, -1)

    @functools.cached_property
    def sample(self) -> torch.Tensor:
        """LongTensor (views,): the prompt that each view is of; with beams, one of those. 0 for a view that none is of."""
        prompts = torch.arange(len(self.view), device=self.view.device)[:, None].expand_as(self.view)
        found = prompts.new_zeros(1 + self.views)
        return found.index_copy(0, (self.view + 1).flatten(), prompts.flatten())[1:]

    @property
    def views(self) -> int:
        """How many pictures the tower saw."""
        return len(self.features)

    def query(self, layer: int) -> torch.Tensor:
        """(views, heads, tokens, d) of an observed layer, [CLS] first where there is one; negative ones count from the end."""
        return self._of_layer(self._record.query, layer)

    def key(self, layer: int) -> torch.Tensor:
        """As `query`."""
        return self._of_layer(self._record.key, layer)

    def _of_layer(self, observed: dict[int, torch.Tensor], layer: int) -> torch.Tensor:
        return observed[layer % len(self._record.tower.layers)].to(self._global_index.device)

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
    def received_attention(self, layer: int, *, of_all: bool = False) -> torch.Tensor:
        """Attention that each patch receives, mean over heads and rows: (views, P) in float32.

        The rows are those of all patches, and that of [CLS] with them where it is received `of_all` tokens.
        """
        first = 0 if of_all else int(self.has_cls)
        query, key = in_float32(self.query(layer)[:, :, first:]), in_float32(self.key(layer))
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

    def project(self, features: torch.Tensor, count: int | torch.Tensor | None = None) -> torch.Tensor:
        """Features (…, width) through the model's projector: (…, hidden_size).

        Counted as scoring, for all rows or, where some are padding, for `count` of them.
        """
        projector = self._record.tower.projector
        rows = features[..., 0].numel() if count is None else count
        self._spend(rows * sum(map(_weights, projector.modules())))
        return run_module(projector, features)

    def of_patches(self, values: torch.Tensor) -> torch.Tensor:
        """Values (views, P, …) at the tokens present: (batch, n, …), 0 in padding columns and at newlines."""
        picked = values.flatten(0, 1)[self._global_index.clamp(min=0)]
        known = (self._global_index >= 0).view(*self._global_index.shape, *[1] * (picked.ndim - 2))
        return picked.masked_fill(~known, 0)

    def by_view(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse of `of_patches`: values (batch, n, …) of the tokens present by patch, (views, P, …), 0 elsewhere."""
        found = values.new_zeros(1 + self.views * self._record.patches, *values.shape[2:])
        found = found.index_copy(0, (self._global_index + 1).flatten(), values.flatten(0, 1))
        return found[1:].unflatten(0, (self.views, -1))


def _weights(module: Any) -> int:
    """The weights of a linear layer, 0 for another module. Quantised layers pack theirs, but keep the sizes by these names."""
    return getattr(module, "in_features", 0) * getattr(module, "out_features", 0)


def index_of_samples(images: list[torch.Tensor], counts: list[int], mask: torch.Tensor) -> torch.Tensor | None:
    """The global patch index of every image position of a batch: LongTensor like `mask` (batch, T), -1 elsewhere.

    With beams each sample stands several times in a row, its images once.

    Args:
        images: per image in prompt order, the global patch index of each of its positions.
        counts: positions of images in each prompt.
        mask: bool (batch, T): where these positions are.

    Returns:
        None where images and positions do not match.
    """
    flat = torch.cat(images) if images else mask.new_zeros(0, dtype=torch.long)
    expansion, rest = divmod(sum(counts), max(len(flat), 1))
    own = counts[:: max(expansion, 1)]
    if rest or not expansion or sum(own) != len(flat) or [c for c in own for _ in range(expansion)] != counts:
        return None
    flat = torch.cat([part for part in flat.split(own) for _ in range(expansion)]).to(mask.device)
    return torch.full(mask.shape, -1, dtype=torch.long, device=mask.device).masked_scatter(mask, flat)
