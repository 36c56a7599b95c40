"""Cosine: the visual tokens stay that are least like all others on average, as vLLM serves it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from baselines.shared.budget import dropped_before_decoder
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes


@dataclass
class Cosine(Pruner):
    """Least mean similarity, vLLM's `image_pruning_method="cosine"` (vllm/multimodal/image_pruning.py; RFC vllm#45098; no
    paper), training-free.

    Of n visual tokens, ⌈n·image_pruning_rate⌉ go, but at least one stays: those whose projected embeddings have the highest
    mean cosine to all others. Survivors stand in prompt order and keep their position ids. Stage: before the decoder. Needs
    neither attention nor [CLS]. As vLLM has it, the mean is the product with the sum of all unit vectors, so scoring takes n
    products, not n². A token's cosine to itself is counted for every token alike.

    Deviation: vLLM prunes every image by itself. Here all visual tokens of a prompt are one pool.

    Attributes:
        image_pruning_rate: share of the visual tokens to drop, at least 0 and below 1 (vLLM has no default).
    """

    name: ClassVar[str] = "cosine"
    text_degree = 0
    image_pruning_rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.image_pruning_rate < 1:
            raise FitPruneError(
                f"image_pruning_rate is the share of visual tokens to drop, from 0 to below 1, not {self.image_pruning_rate}."
            )

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        tokens.spend(tokens.count.sum() * tokens.hidden.shape[-1])
        unit = functional.normalize(tokens.features.float(), dim=-1)
        redundancy = (unit @ unit.sum(1)[..., None])[..., 0]
        # 1e-9 as vLLM has it: the product may come out just above a whole number.
        drop = (tokens.total.double() * self.image_pruning_rate - 1e-9).ceil().long()
        return tokens.keep_highest(-redundancy, (tokens.total - drop).clamp(min=1))

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "Cosine":
        """Solve `image_pruning_rate` for a FLOPs budget, the cosines included."""

        def scoring(n: int, dropped: int) -> int:
            return n * DecoderSizes.of(model_config).hidden_size

        n, dropped = dropped_before_decoder("cosine", model_config, reduction, visual_tokens, scoring, fewest=1)
        return cls(min(dropped, n - 1) / n)
