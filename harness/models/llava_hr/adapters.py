"""How the slow branch's features enter the fast branch: latent adapters on the way, the alignment at the end."""

import torch
from torch import nn
from torch.nn import functional

from fitprune.errors import FitPruneError

Grid = tuple[int, int]
"""Rows and columns of the fast branch's tokens."""


def to_tokens(features: torch.Tensor, grid: Grid) -> torch.Tensor:
    """A feature map (batch, channels, h, w) as the tokens (batch, rows · columns, channels) of a grid.

    Fewer are enlarged (bilinear, align_corners, in float32), more are averaged in equal windows.
    Raises FitPruneError for more features that no equal windows average to the grid.
    """
    height, width = features.shape[-2:]
    rows, columns = grid
    if height > rows or width > columns:
        if height % rows or width % columns:
            raise FitPruneError(
                f"the slow branch's {height}×{width} features cannot be averaged to {rows}×{columns} tokens; "
                "choose image_size and fast_image_size so that one side divides the other."
            )
        features = functional.avg_pool2d(features, (height // rows, width // columns))
    elif (height, width) != grid:
        large = functional.interpolate(features.float(), size=grid, mode="bilinear", align_corners=True)
        features = large.to(features.dtype)
    return features.flatten(2).transpose(1, 2)


class LatentAdapter(nn.Module):
    """Mixes the slow features into the fast tokens (the paper's MR-Adapter), weighted by one gate per image.

    fast (batch, N, D) on a grid, slow (batch, C, h, w) → (batch, N, D).
    """

    def __init__(self, fast_width: int, slow_width: int) -> None:
        super().__init__()
        self.slow_conv = nn.Conv2d(slow_width, slow_width, 1)
        self.slow_proj = nn.Conv2d(slow_width, fast_width, 1)
        self.fast_conv = nn.Conv2d(fast_width, fast_width, 7, padding=3, groups=fast_width)
        self.fast_proj = nn.Conv2d(fast_width, fast_width, 1)
        self.gate = nn.Sequential(nn.Linear(2 * fast_width, fast_width // 2), nn.GELU(), nn.Linear(fast_width // 2, 1))

    def forward(self, fast: torch.Tensor, slow: torch.Tensor, grid: Grid) -> torch.Tensor:
        slow = to_tokens(self.slow_proj(functional.gelu(self.slow_conv(slow))), grid)
        tokens = fast.transpose(1, 2).unflatten(2, grid)
        tokens = tokens + self.fast_proj(functional.gelu(self.fast_conv(tokens)))
        fast = tokens.flatten(2).transpose(1, 2)
        gate = self.gate(torch.cat([fast, slow], dim=-1).mean(1)).tanh()
        return fast + gate.unsqueeze(1) * slow


class FinalAlignment(nn.Module):
    """The sum of both branches' linear projections: fast (batch, N, D) on a grid, slow (batch, C, h, w) → (batch, N, D)."""

    def __init__(self, fast_width: int, slow_width: int) -> None:
        super().__init__()
        self.fast_proj = nn.Linear(fast_width, fast_width)
        self.slow_proj = nn.Linear(slow_width, fast_width)

    def forward(self, fast: torch.Tensor, slow: torch.Tensor, grid: Grid) -> torch.Tensor:
        return self.fast_proj(fast) + self.slow_proj(to_tokens(slow, grid))
