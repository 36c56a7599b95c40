"""FastV: after a shallow layer, the visual tokens stay that the last token attends to most."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from baselines.shared.budget import TEXT_TOKENS, fewest_dropped
from baselines.shared.counts import part
from fitprune import BudgetError, FitPruneError, Pruner
from fitprune.interface.tokens import Attention, VisualTokens
from fitprune.models.parts import model_parts
from fitprune.models.sizes import DecoderSizes


@dataclass
class FastV(Pruner):
    """FastV (Chen et al. 2024, arXiv 2403.06764; code github.com/pkunlp-icler/FastV), training-free.

    Before layer K, the int(n·(1-R)) visual tokens stay that receive most of the head-mean attention of the prompt's last
    token in layer K-1 (0-based). They stand in prompt order and keep their position ids. Stage: between decoder layers. Needs
    one attention row of one layer, computed beside SDPA, but no [CLS].

    The paper ranks by the attention from all later tokens. All of the authors' code ranks by that from the last token, as
    here. The authors' code for lmms-eval rounds n·(1-R) down, as here. Their copy of transformers rounds to the nearest.

    Deviations:

    - The authors' code for lmms-eval runs layer K-1 a second time for its attention map, which doubles that layer's keys in
      a cache. Here the row is computed from the layer's own queries and keys.
    - All images of a prompt are one pool. The authors' code takes one image.

    Attributes:
        k: the first layer without the dropped tokens, at least 1 (authors' default 2).
        r: share of the visual tokens to drop, in (0, 1] (authors' default 0.5).
    """

    name: ClassVar[str] = "fastv"
    text_degree = 1
    k: int = 2
    r: float = 0.5

    def __post_init__(self) -> None:
        if self.k < 1:
            raise FitPruneError(f"FastV needs the attention of layer K-1, so K must be at least 1, not {self.k}.")
        if not 0 < self.r <= 1:
            raise FitPruneError(f"FastV's R is a share of the visual tokens, above 0 and up to 1, not {self.r}.")

    def check(self, model: nn.Module) -> None:
        super().check(model)
        layers = len(model_parts(model).layers)
        if self.k >= layers:
            raise FitPruneError(f"FastV with K={self.k} prunes nothing in a decoder of {layers} layers.")

    def observed_layers(self, layers: int) -> Collection[int]:
        return [self.k - 1]

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> None:
        tokens.carried["fastv"] = tokens.spread(attention.last_token_mean(tokens))

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != self.k:
            return None
        return tokens.keep_highest(tokens.columns(tokens.carried["fastv"]), part(tokens.total, 1 - self.r))

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None, k: int = 2) -> "FastV":
        """Solve R for a FLOPs budget, the attention row included, with K given.

        K is not scaled to the decoder's depth: the authors take K=2 in decoders of 32 and of 40 layers.
        """
        sizes = DecoderSizes.of(model_config)
        if k >= sizes.layers:
            raise BudgetError(f"FastV with K={k} prunes nothing in a decoder of {sizes.layers} layers; it reaches 0 %.")

        def entering(n: int, dropped: int) -> list[int]:
            return [n] * k + [n - dropped] * (sizes.layers - k)

        def scoring(n: int, dropped: int) -> int:
            return (n + TEXT_TOKENS) * sizes.q_size

        n, dropped = fewest_dropped(f"FastV with K={k}", model_config, reduction, visual_tokens, entering, scoring)
        return cls(k=k, r=dropped / n)
