"""Random: a random share of the visual tokens is dropped before the decoder, the control that every method must beat."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from baselines.shared.budget import dropped_before_decoder
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens


@dataclass
class Random(Pruner):
    """A uniformly random share of the visual tokens is dropped, without replacement. A control from no paper.

    The draw of a sample is seeded by `seed`, the sample's prompt and its image, so it does not depend on the rest of the
    batch. Survivors stand in prompt order and keep their position ids. Stage: before the decoder. Needs neither attention nor
    [CLS].

    Attributes:
        ratio: share of the visual tokens to drop, in (0, 1]; round(n·ratio) go.
        seed: seed of the draws.
    """

    name: ClassVar[str] = "random"
    text_degree = 0
    ratio: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise FitPruneError(f"ratio is the share of visual tokens to drop, above 0 and up to 1, not {self.ratio}.")

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        score = torch.zeros(tokens.position.shape, dtype=torch.float64)
        for row, (seed, count) in enumerate(zip(tokens.sample_seeds(self.seed), tokens.total.tolist(), strict=True)):
            draw = torch.Generator().manual_seed(seed)
            score[row, :count] = torch.rand(count, generator=draw, dtype=torch.float64)
        drop = (tokens.total.double() * self.ratio).round().long()
        return tokens.keep_highest(score.to(tokens.position.device), tokens.total - drop)

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None, seed: int = 0) -> "Random":
        """Solve `ratio` for a FLOPs budget."""
        n, dropped = dropped_before_decoder("random pruning", model_config, reduction, visual_tokens)
        return cls(ratio=dropped / n, seed=seed)
