"""Downsampling: what the tower sees is a smaller picture."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from baselines.shared.budget import prompt_tokens
from baselines.shared.grids import full_side, nearest_grid
from fitprune import FitPruneError, Pruner
from fitprune.models.parts import model_parts


@dataclass
class Downsample(Pruner):
    """Image downsampling, VTC-Bench's baseline (Liao et al. 2025, arXiv 2510.07143; code github.com/Chenfei-Liao/VTC-Bench).

    The picture is reduced, bicubic, by the authors to (w/r, h/r) pixels before the processor of a Qwen2-VL, whose prompt is
    then so much shorter. Stage: input. Needs neither attention nor [CLS], but a tower of CLIP's or SigLIP's form. Position
    ids repacked: nothing tells the decoder that the picture was larger.

    Deviations, for models whose processor brings every picture to one size: each view (image, base view, tile), as the
    processor gives it, is reduced to rows × columns patches, bicubic with antialiasing, as PIL does it; values are not
    rounded or clipped to bytes on the way. The tower encodes the smaller picture with its position embeddings interpolated,
    and rows and columns need not be equal, so that budgets are met. A LLaVA-HR sees the smaller picture with both branches.
    On LLaVA-NeXT, whose tiling the authors' reduction would change, the tiles stay, and newlines after all rows of the full
    picture; of the tiles' tokens those go whose middle is padding. Not for models that take pictures of any size themselves
    (Qwen2.5-VL), nor InternVL, whose towers have another form: give those smaller pictures.

    Attributes:
        rows, columns: patches of a reduced view.
        visual_tokens: patches of a view at full size, which rows and columns are counted against (576: 24 × 24, of which
            12 × 12 are the authors' r = 2).
    """

    name: ClassVar[str] = "downsample"
    rows: int = 12
    columns: int = 12
    visual_tokens: int = 576
    positions: str = field(default="repacked", kw_only=True)

    def __post_init__(self) -> None:
        side = math.isqrt(max(self.visual_tokens, 0))
        if side**2 != self.visual_tokens or not 1 <= min(self.rows, self.columns) <= max(self.rows, self.columns) <= side:
            raise FitPruneError(
                f"{self.rows}×{self.columns} patches are no reduction of a square view of {self.visual_tokens} patches."
            )

    def check(self, model: nn.Module) -> None:
        side = full_side(model_parts(model).parent.config)
        if side**2 != self.visual_tokens:
            raise FitPruneError(
                f"this model's views have {side}×{side} patches; give rows and columns of these, with visual_tokens={side**2}."
            )
        if self.rows == self.columns == side:
            raise FitPruneError(f"{self.rows}×{self.columns} patches are this model's full views: nothing is reduced.")

    def before_tower(self, pixels: torch.Tensor) -> torch.Tensor:
        side, (height, width) = math.isqrt(self.visual_tokens), pixels.shape[-2:]
        size = (round(height * self.rows / side), round(width * self.columns / side))
        small = functional.interpolate(pixels.float(), size=size, mode="bicubic", antialias=True, align_corners=False)
        return small.to(pixels.dtype)

    @classmethod
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
        cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None
    ) -> "Downsample":
        """Choose the grid for a budget of decoder FLOPs, see `grids.nearest_grid`; what the tower saves comes on top."""
        n = prompt_tokens(model_config, visual_tokens)
        rows, columns = nearest_grid("downsampling", model_config, reduction, n)
        return cls(rows, columns, full_side(model_config) ** 2)
