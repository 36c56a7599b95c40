"""Uniform stride: every k-th visual token, wherever the picture shows something or not."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from baselines.shared.budget import fewest_dropped
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes


@dataclass
class Uniform(Pruner):
    """Keep visual tokens at equal distances in prompt order: of n the m numbered ⌊i·n/m⌋, i = 0 … m-1.

    Where m divides n that is every (n/m)-th token, counted from the first. A control, of no paper's own; position ids kept.
    Stage: before the decoder. Needs neither attention nor [CLS]. Rows of patches follow one another in a prompt, so strides
    that divide a row keep whole columns of the picture.

    Attributes:
        ratio: share of the visual tokens to drop, above 0 and up to 1; round(n·ratio) go.
    """

    name: ClassVar[str] = "uniform"
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
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
        cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None
    ) -> "Uniform":
        """Solve the ratio for a FLOPs budget."""
        layers = DecoderSizes.of(model_config).layers
        n, dropped = fewest_dropped(
            "uniform stride",
            model_config,
            reduction,
            visual_tokens,
            entering=lambda n, dropped: [n - dropped] * layers,
        )
        return cls(dropped / n)


def strided(index: torch.Tensor, total: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Which indices (batch, n), each below `total` (batch,), are ⌊i·total/keep⌋ for some i: bool (batch, n), `keep` a row."""
    total, keep = total.clamp(min=1)[:, None], keep[:, None]
    # The first i whose place is not below an index is ⌈index · keep / total⌉; an index is met if the next has a later one.
    first = torch.div(index * keep + total - 1, total, rounding_mode="floor")
    after = torch.div((index + 1) * keep + total - 1, total, rounding_mode="floor")
    return after > first
