"""Pool: adaptive 2D average pooling, which gives every view a coarser grid."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from baselines.shared.grids import full_side, nearest_grid
from baselines.shared.padded import indices_of, rows_at
from baselines.shared.repacked import Repacked
from fitprune import FitPruneError, Selection
from fitprune.interface.tokens import VisualTokens
from fitprune.models.parts import model_parts
from fitprune.models.sizes import DecoderSizes


@dataclass
class Pool(Repacked):
    """Average pooling of the projected embeddings of each view (image, base view, tile). A control from no paper.

    A view becomes a grid of rows × columns windows, those of torch's adaptive_avg_pool2d: of `a` windows over h patches,
    window i reaches from ⌊i·h/a⌋ to ⌈(i+1)·h/a⌉. The averages stand in prompt order, each named by the patch in the middle of
    its window. Position ids repacked. Stage: before the decoder. Needs neither attention nor [CLS], but a tower of CLIP's or
    SigLIP's form, whose grid is known.

    Where the padding of a LLaVA-NeXT view was cut off, only the h × w patches in the prompt take part. They are pooled to
    round(rows · h/H) × round(columns · w/W) windows, at least one, so that windows are as large as in a whole view of H × W
    patches. Newlines stay; `newlines="pruned"` drops them.

    Attributes:
        rows, columns: windows of a whole view.
    """

    name: ClassVar[str] = "pool"
    vision: ClassVar[bool] = True
    rows: int = 12
    columns: int = 12

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1:
            raise FitPruneError(f"pooling needs at least one row and one column, not {self.rows}×{self.columns}.")

    def check(self, model: nn.Module) -> None:
        side = full_side(model_parts(model).parent.config)
        if max(self.rows, self.columns) > side or min(self.rows, self.columns) == side:
            raise FitPruneError(
                f"pooling to {self.rows}×{self.columns} windows is no reduction of this model's views of {side}×{side} patches."
            )

    def before_layer(self, layer: int, tokens: VisualTokens) -> Selection | None:
        if layer != 0:
            return None
        vision, (height, width) = tokens.vision, tokens.vision.grid
        number = vision.view * height * width + vision.patch
        known = number[vision.view >= 0]
        there = tokens.present.new_zeros(vision.views * height * width)
        there[known] = True
        values = tokens.hidden.new_zeros(len(there), tokens.hidden.shape[-1], dtype=torch.float32)
        values[known] = tokens.features[vision.view >= 0].float()
        grid = (vision.views, height, width)
        means, middle, macs = pooled(values.view(*grid, -1), there.view(grid), self.rows, self.columns)
        tokens.spend(macs)
        index = indices_of(vision.of_patches(middle.flatten(1)))
        return Selection(index, rows_at(vision.of_patches(means.flatten(1, 2)), index))

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "Pool":
        """Solve `rows` and `columns` for a FLOPs budget, averaging included."""

        def scoring(n: int, grid: tuple[int, int]) -> int:
            side, hidden = full_side(model_config), DecoderSizes.of(model_config).hidden_size
            return round(n / side**2 * hidden * (grid[1] * side**2 + math.prod(grid) * side))

        return cls(*nearest_grid("pooling", model_config, reduction, visual_tokens, scoring))


def pooled(
    values: torch.Tensor, there: torch.Tensor, rows: int, columns: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Averages of each view's patches in rows × columns windows of a whole view.

    Args:
        values: (views, H, W, d), 0 at patches that are not in the prompt.
        there: bool (views, H, W), the patches in the prompt, a rectangle of each view.

    Returns:
        The means (views, H, W, d), each at the patch in the middle of its window, 0 elsewhere; bool (views, H, W), where these
        are; the multiply-accumulates of averaging the patches in the prompt, first along rows, then along columns.
    """
    down, across = there.any(2), there.any(1)
    shares_down, row = _windows(down, rows)
    shares_across, column = _windows(across, columns)
    # Not adaptive_avg_pool2d for whole views: torch's FLOP counter counts products, and would miss its work.
    narrow = torch.einsum("vhwd,vbw->vhbd", values, shares_across)
    means = torch.einsum("vah,vhbd->vabd", shares_down, narrow)
    middle = (row >= 0)[:, :, None] & (column >= 0)[:, None]
    view = torch.arange(len(there), device=there.device)[:, None, None]
    placed = means[view, row.clamp(min=0)[:, :, None], column.clamp(min=0)[:, None]].masked_fill(~middle[..., None], 0)
    high, broad, few = down.sum(1), across.sum(1), (column >= 0).sum(1)
    return placed, middle, (high * few * (broad + (row >= 0).sum(1))).sum() * values.shape[-1]


def _windows(there: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows along one axis of each view, `most` over a whole axis, fewer over a shorter run of patches.

    Args:
        there: bool (views, size): which rows (or columns) hold patches, one run of them.

    Returns:
        Weights (views, most, size) of each row in the mean of each window, 0 in unused windows; and LongTensor (views, size):
        the window that a row is the middle of, or -1.
    """
    size = there.shape[1]
    length, first = there.sum(1), there.byte().argmax(1)
    count = torch.where(length > 0, (length.double() * most / size).round().long().clamp(min=1), 0)
    number = torch.arange(most, device=there.device)[None]
    used, divisor = number < count[:, None], count.clamp(min=1)[:, None]
    start = first[:, None] + torch.div(number * length[:, None], divisor, rounding_mode="floor")
    end = first[:, None] + torch.div((number + 1) * length[:, None] + divisor - 1, divisor, rounding_mode="floor")
    line = torch.arange(size, device=there.device)
    inside = (line >= start[..., None]) & (line < end[..., None]) & used[..., None]
    shares = inside.float() / inside.sum(2, keepdim=True).clamp(min=1)
    # No two windows share a middle: a window starts and ends later than the one before it.
    middles = (line == torch.div(start + end - 1, 2, rounding_mode="floor")[..., None]) & used[..., None]
    return shares, torch.where(middles.any(1), middles.byte().argmax(1), -1)
