"""Uniform: visual tokens at equal distances in prompt order, a control that ignores the picture."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from baselines.shared.budget import dropped_before_decoder
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens


@dataclass
class Uniform(Pruner):
    """Uniform stride: of n visual tokens, the m tokens with the indices ⌊i·n/m⌋ stay, i = 0 … m-1. A control from no paper.

    Where m divides n, these are every (n/m)-th token, the first among them. Survivors keep their position ids. Stage: before
    the decoder. Needs neither attention nor [CLS]. Rows of patches follow one another in a prompt, so a stride that divides a
    row keeps whole columns of the picture.

    Attributes:
        ratio: share of the visual tokens to drop, in (0, 1]; round(n·ratio) go.
    """

    name: ClassVar[str] = "uniform"
    text_degree = 0
    ratio: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise FitPruneError(f"ratio is the share of visual tokens to drop, above 0 and up to 1, not {self.ratio}.")

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        drop = (tokens.total.double() * self.ratio).round().long()
        return strided(tokens.original, tokens.total, tokens.total - drop) & tokens.present

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "Uniform":
        """Solve `ratio` for a FLOPs budget."""
        n, dropped = dropped_before_decoder("uniform stride", model_config, reduction, visual_tokens)
        return cls(dropped / n)


def strided(index: torch.Tensor, total: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Bool (batch, n): which of `index` (batch, n), each below `total`, are ⌊i·total/keep⌋ for some i; both (batch,)."""
    total, keep = total.clamp(min=1)[:, None], keep[:, None]
    # ⌈index · keep / total⌉ is the first i with ⌊i·total/keep⌋ ≥ index. An index is hit where index + 1 has a larger i.
    first = torch.div(index * keep + total - 1, total, rounding_mode="floor")
    after = torch.div((index + 1) * keep + total - 1, total, rounding_mode="floor")
    return after > first
