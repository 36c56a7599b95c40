"""DART: a few pivots stay, and for each of them the visual tokens that duplicate it least."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import normalize

from baselines.shared.budget import TEXT_TOKENS, nearest_choice, prompt_tokens
from baselines.shared.choosing.duplicates import equal_shares, least_duplicates
from baselines.shared.padded import highest_indices, marked, rows_at
from baselines.shared.rotary import keys_from_zero
from fitprune import BudgetError, FitPruneError, Pruner
from fitprune.interface.tokens import Attention, VisualTokens
from fitprune.models.execution import run_module
from fitprune.models.parts import model_parts
from fitprune.models.sizes import DecoderSizes


@dataclass
class DART(Pruner):
    """DART, Duplication-Aware Reduction of Tokens (Wen et al. 2025, arXiv 2502.11494; code github.com/ZichenWen1/DART),
    training-free.

    Before layer K, DART chooses pivots: the 4 visual tokens and the 4 text tokens after the image whose keys in layer K-1,
    rotary embedding applied, have the largest L1 norm. Each pivot keeps floor(budget/8) of the visual tokens that are left:
    those least similar to it, by the cosine of hidden states after layer K-1 and the decoder's final norm. Visual pivots
    stay, too, so 4 + 8·floor(budget/8) tokens stay in all. Position ids kept. Stage: between decoder layers. Needs keys, but
    neither attention nor [CLS].

    Deviations:

    - The authors visit the pivots in the order of a Python set of integers, which changes nearly every kept set by a few
      tokens. Here visual pivots come first, then text pivots, each by falling norm.
    - The L1 norm of a rotated key depends on its position. Norms are those of a prompt that begins at position id 0, so
      that padding, which position ids may count, changes no choice.
    - The authors' code fails on a prompt with fewer than 4 text tokens after the image. Here the pivots that there are
      share the budget.
    - All images of a prompt are one pool, and text counts after the last of them.
    - A prompt with another number of visual tokens keeps the same share of them.

    Attributes:
        k: the first layer without the dropped tokens, at least 1 (the authors' --pruned_layer, 2).
        max_num_trunction: the budget, as the authors spell it (128).
        pivot_image_token, pivot_text_token: numbers of pivots (4 and 4).
        visual_tokens: the number of visual tokens that the budget refers to.
        remainder: what happens to the remainder of budget / number of pivots. "dropped": nothing, as by the authors. "shared":
            the first pivots keep one token more, so that exactly budget + 4 tokens stay.
    """

    name: ClassVar[str] = "dart"
    k: int = 2
    max_num_trunction: int = 128
    pivot_image_token: int = 4
    pivot_text_token: int = 4
    visual_tokens: int = 576
    remainder: str = "dropped"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise FitPruneError(f"DART needs the keys of layer K-1, so K must be at least 1, not {self.k}.")
        if self.pivot_image_token < 1 or self.pivot_text_token < 0:
            raise FitPruneError(
                "DART needs at least 1 visual pivot and 0 text pivots, "
                f"not {self.pivot_image_token} and {self.pivot_text_token}."
            )
        if self.max_num_trunction < 0 or self.visual_tokens < 1:
            raise FitPruneError(f"DART cannot keep {self.max_num_trunction} of {self.visual_tokens} visual tokens.")
        if self.remainder not in ("dropped", "shared"):
            raise FitPruneError(f"remainder must be dropped or shared, not {self.remainder!r}.")
        self.text_degree = 0 if self.pivot_text_token <= TEXT_TOKENS else None  # a short text has fewer

    def check(self, model: nn.Module) -> None:
        super().check(model)
        layers = len(model_parts(model).layers)
        if self.k >= layers:
            raise FitPruneError(f"DART with K={self.k} prunes nothing in a decoder of {layers} layers.")

    def observed_layers(self, layers: int) -> Collection[int]:
        return [self.k - 1]

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> None:
        # The authors count a key head once for each query head that shares it. This constant factor changes no rank.
        tokens.carried["dart"] = keys_from_zero(attention.key, tokens).abs().sum((1, 3))

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != self.k:
            return None
        assert tokens.parts is not None
        norm = tokens.carried["dart"]
        images = highest_indices(tokens.columns(norm), tokens.present, self.pivot_image_token)
        texts = highest_indices(norm, tokens.text_after, self.pivot_text_token)
        rows = torch.where(images >= 0, tokens.position.gather(1, images.clamp(min=0)), -1)
        pivots = torch.cat([rows, texts], 1)
        state = normalize(run_module(tokens.parts.decoder.norm, tokens.hidden).float(), dim=-1)
        similarity = rows_at(state, pivots) @ tokens.rows(state).transpose(1, 2)
        tokens.spend(((pivots >= 0).sum(1) * tokens.count).sum() * state.shape[-1])
        chosen = marked(images, tokens.present.shape[1])
        return chosen | least_duplicates(similarity, tokens.present & ~chosen, self.shares(tokens.total, pivots >= 0))

    def shares(self, total: torch.Tensor, pivots: torch.Tensor) -> torch.Tensor:
        """The number of tokens that each pivot keeps, LongTensor (batch, P).

        Args:
            total: (batch,), visual tokens of each prompt.
            pivots: bool (batch, P): which of the pivots a prompt has.
        """
        budget = (total.double() * self.max_num_trunction / self.visual_tokens).round().long()[:, None]
        return equal_shares(budget, pivots, remainder=self.remainder == "shared")

    @classmethod
    def for_reduction(
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        k: int = 2,
        pivot_image_token: int = 4,
        pivot_text_token: int = 4,
    ) -> "DART":
        """Solve `max_num_trunction` for a FLOPs budget, similarities included, with K given.

        The remainder is shared, so that every number of tokens can be met. K is not scaled to the decoder's depth: the
        authors take K=2 in decoders of 28 and of 32 layers.
        """
        sizes = DecoderSizes.of(model_config)
        if k >= sizes.layers:
            raise BudgetError(f"DART with K={k} prunes nothing in a decoder of {sizes.layers} layers; it reaches 0 %.")

        def entering(n: int, budget: int) -> list[int]:
            return [n] * k + [min(n, budget + pivot_image_token)] * (sizes.layers - k)

        def scoring(n: int, budget: int) -> int:
            return (pivot_image_token + pivot_text_token) * n * sizes.hidden_size

        n = prompt_tokens(model_config, visual_tokens)
        choices = range(max(1, n - pivot_image_token))
        n, budget = nearest_choice(f"DART with K={k}", model_config, reduction, n, choices, entering, scoring)
        return cls(k, budget, pivot_image_token, pivot_text_token, n, "shared")
