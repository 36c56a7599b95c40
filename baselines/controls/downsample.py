"""Downsample: the vision tower encodes smaller pictures."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from baselines.shared.budget import prompt_tokens
from baselines.shared.grids import full_side, nearest_grid
from baselines.shared.repacked import Repacked
from fitprune import FitPruneError
from fitprune.models.parts import model_parts


@dataclass
class Downsample(Repacked):
    """Image downsampling, VTC-Bench's baseline (Liao et al. 2025, arXiv 2510.07143; code github.com/Chenfei-Liao/VTC-Bench).

    The authors reduce a picture, bicubic, to (w/r, h/r) pixels before the processor of a Qwen2-VL, which shortens the prompt.
    Position ids are repacked: nothing tells the decoder that the picture was larger. Stage: input. Needs neither attention
    nor [CLS], but a tower of CLIP's or SigLIP's form.

    Deviations, for models whose processor gives every picture one size:

    - Each view (image, base view, tile) that the processor gives is reduced to rows × columns patches, bicubic with
      antialiasing, as in PIL. Values are not rounded or clipped to bytes.
    - The tower interpolates its position embeddings. Rows and columns may differ, so that budgets are met.
    - Both branches of a LLaVA-HR encode the smaller picture.
    - On LLaVA-NeXT, the authors' reduction would change the tiling. Here the tiles stay, and so do the newlines after all
      rows of the full picture. A token of a tile is dropped where the middle of its patch is padding.
    - Models that take pictures of any size (Qwen2.5-VL), and InternVL, have towers of another form and are refused. Give
      these models smaller pictures.

    Attributes:
        rows, columns: patches of a reduced view.
        visual_tokens: patches of a view at full size (576: 24 × 24, of which 12 × 12 are the authors' r = 2).
    """

    name: ClassVar[str] = "downsample"
    rows: int = 12
    columns: int = 12
    visual_tokens: int = 576

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
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "Downsample":
        """Solve `rows` and `columns` for a budget of decoder FLOPs. The tower's saving is not counted."""
        n = prompt_tokens(model_config, visual_tokens)
        rows, columns = nearest_grid("downsampling", model_config, reduction, n)
        return cls(rows, columns, full_side(model_config) ** 2)
