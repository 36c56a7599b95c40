"""How the slow branch's features enter the fast branch: latent adapters on the way, the alignment at the end."""

import math

import torch
from torch import nn
from torch.nn import functional

from fitprune.errors import FitPruneError


def to_tokens(features: torch.Tensor, count: int) -> torch.Tensor:
    """A square feature map (batch, channels, side, side) as `count` tokens (batch, count, channels).

    Fewer are enlarged (bilinear, align_corners, in float32), more are averaged in equal windows.
    Raises FitPruneError for more tokens that no equal windows average to `count`.
    """
    side, wanted = features.shape[-1], math.isqrt(count)
    if side < wanted:
        large = functional.interpolate(features.float(), size=(wanted, wanted), mode="bilinear", align_corners=True)
        features = large.to(features.dtype)
    elif side > wanted:
        if side % wanted:
            raise FitPruneError(
                f"the slow branch's {side}×{side} features cannot be averaged to {wanted}×{wanted} tokens; "
                "choose image_size and fast_image_size so that one side divides the other."
            )
        features = functional.avg_pool2d(features, side // wanted)
    return features.flatten(2).transpose(1, 2)


class LatentAdapter(nn.Module):
    """Mixes the slow features into the fast tokens (the paper's MR-Adapter), weighted by one gate per image.

    fast (batch, N, D), slow (batch, C, h, h) → (batch, N, D).
    """

    def __init__(self, fast_width: int, slow_width: int) -> None:
        super().__init__()
        self.slow_conv = nn.Conv2d(slow_width, slow_width, 1)
        self.slow_proj = nn.Conv2d(slow_width, fast_width, 1)
        self.fast_conv = nn.Conv2d(fast_width, fast_width, 7, padding=3, groups=fast_width)
        self.fast_proj = nn.Conv2d(fast_width, fast_width, 1)
        self.gate = nn.Sequential(nn.Linear(2 * fast_width, fast_width // 2), nn.GELU(), nn.Linear(fast_width // 2, 1))

    def forward(self, fast: torch.Tensor, slow: torch.Tensor) -> torch.Tensor:
        count = fast.shape[1]
        slow = to_tokens(self.slow_proj(functional.gelu(self.slow_conv(slow))), count)
        grid = fast.transpose(1, 2).unflatten(2, (math.isqrt(count), -1))
        grid = grid + self.fast_proj(functional.gelu(self.fast_conv(grid)))
        fast = grid.flatten(2).transpose(1, 2)
        gate = self.gate(torch.cat([fast, slow], dim=-1).mean(1)).tanh()
        return fast + gate.unsqueeze(1) * slow


class FinalAlignment(nn.Module):
    """The sum of both branches' linear projections: fast (batch, N, D), slow (batch, C, h, h) → (batch, N, D)."""

    def __init__(self, fast_width: int, slow_width: int) -> None:
        super().__init__()
        self.fast_proj = nn.Linear(fast_width, fast_width)
        self.slow_proj = nn.Linear(slow_width, fast_width)

    def forward(self, fast: torch.Tensor, slow: torch.Tensor) -> torch.Tensor:
        return self.fast_proj(fast) + self.slow_proj(to_tokens(slow, fast.shape[1]))
