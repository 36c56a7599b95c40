"""DART: keep a few pivots, and for each of them the visual tokens that duplicate it least."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import normalize

from baselines.shared.budget import nearest_choice, prompt_tokens
from fitprune import BudgetError, FitPruneError, Pruner
from fitprune.interface.gather import take
from fitprune.interface.tokens import Attention, VisualTokens
from fitprune.models.parts import model_parts
from fitprune.models.sizes import DecoderSizes


def highest(score: torch.Tensor, among: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The `count` (batch,) highest of the scores (batch, n) that are marked in `among`, bool: their places, LongTensor
    (batch, n), highest first and padded with -1; of equals the earlier first."""
    order = score.masked_fill(~among, float("-inf")).argsort(dim=1, descending=True, stable=True)
    count = count.minimum(among.sum(1))
    return order.masked_fill(torch.arange(order.shape[1], device=order.device) >= count[:, None], -1)


def mark(places: torch.Tensor, n: int) -> torch.Tensor:
    """bool (batch, n): the places that are named in `places` (batch, m), padded with -1."""
    # -1 falls on column 0 of an extra column that is cut off again.
    marked = torch.zeros(len(places), n + 1, dtype=torch.bool, device=places.device)
    return marked.scatter(1, places + 1, True)[:, 1:]


def least_duplicates(similarity: torch.Tensor, free: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Each pivot, in turn, keeps the free tokens that are least similar to it.

    Args:
        similarity: (batch, P, n) of P pivots to n visual tokens.
        free: bool (batch, n): tokens that may be taken, pivots not among them.
        shares: LongTensor (batch, P): how many each pivot takes.

    Returns:
        bool (batch, n): all that were taken.
    """
    taken = torch.zeros_like(free)
    # As many turns as there are pivots, a parameter: what one takes depends on what those before it have taken.
    for pivot in range(similarity.shape[1]):
        places = highest(-similarity[:, pivot], free & ~taken, shares[:, pivot])
        taken = taken | mark(places, free.shape[1])
    return taken


@dataclass
class DART(Pruner):
    """DART, Duplication-Aware Reduction of Tokens (Wen et al. 2025, arXiv 2502.11494; code github.com/ZichenWen1/DART),
    training-free.

    Before layer K, the pivots are the 4 visual and 4 text tokens (text = all after the image) with the largest L1 norm of
    their keys in layer K-1, rotary embedding applied. Each pivot keeps the floor(budget/8) visual tokens, of those left,
    whose hidden states after layer K-1 and the decoder's final norm are least cosine-similar to its own; visual pivots stay
    as well, 4 + 8·floor(budget/8) in all. Stage: between decoder layers. Needs keys, but neither attention nor [CLS]. Position
    ids kept.

    Deviations. The authors go through the pivots in the order of a Python set of integers, which is that of its hash table
    and changes nearly every kept set by a few tokens; here visual pivots come first, then text pivots, each by falling norm,
    which is how they are found. A prompt with fewer than 4 text tokens after the image, where the authors' code fails,
    shares the budget among the pivots that it has. All images of a prompt are one pool, text counts after the last of them.
    Prompts with another number of visual tokens keep the same share of them.

    Attributes:
        k: the first layer without the dropped tokens, at least 1 (the authors' --pruned_layer, 2).
        max_num_trunction: the budget, as the authors spell it (128).
        pivot_image_token, pivot_text_token: numbers of pivots (4 and 4).
        visual_tokens: the number of visual tokens that the budget is of.
        remainder: of the budget divided by the number of pivots: "dropped" as by the authors, or "shared": one token more for
            the first pivots, so that budget + 4 tokens stay exactly.
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

    def check(self, model: nn.Module) -> None:
        super().check(model)
        layers = len(model_parts(model).layers)
        if self.k >= layers:
            raise FitPruneError(f"DART with K={self.k} prunes nothing in a decoder of {layers} layers.")

    def observed_layers(self, layers: int) -> Collection[int]:
        return [self.k - 1]

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> None:
        # Key heads that queries share count once here and once per query by the authors: a factor that ranks nothing.
        tokens.memory["dart"] = attention.key.float().abs().sum((1, 3))

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != self.k:
            return None
        assert tokens.parts is not None
        norm: torch.Tensor = tokens.memory["dart"]
        everyone = tokens.count.clamp(max=self.pivot_image_token)
        images = highest(tokens.columns(norm), tokens.present, everyone)[:, : self.pivot_image_token]
        few = torch.full_like(everyone, self.pivot_text_token)
        texts = highest(norm, tokens.text_after, few)[:, : self.pivot_text_token]
        rows = torch.where(images >= 0, tokens.position.gather(1, images.clamp(min=0)), -1)
        pivots = torch.cat([rows, texts], 1)
        state = normalize(tokens.parts.decoder.norm(tokens.hidden).float(), dim=-1)
        similarity = take(state, pivots.clamp(min=0)) @ tokens.rows(state).transpose(1, 2)
        tokens.spend(int(((pivots >= 0).sum(1) * tokens.count).sum()) * state.shape[-1])
        chosen = mark(images, tokens.present.shape[1])
        return chosen | least_duplicates(similarity, tokens.present & ~chosen, self.shares(tokens.total, pivots >= 0))

    def shares(self, total: torch.Tensor, pivots: torch.Tensor) -> torch.Tensor:
        """How many tokens each pivot keeps, LongTensor (batch, P), in prompts of `total` (batch,) visual tokens; `pivots`,
        bool (batch, P), says which of the pivots there are."""
        budget = (total.double() * self.max_num_trunction / self.visual_tokens).round().long()[:, None]
        number = pivots.sum(1, keepdim=True).clamp(min=1)
        shares = (budget // number).expand(pivots.shape)
        if self.remainder == "shared":
            shares = shares + (pivots.cumsum(1) <= budget % number)
        return shares * pivots

    @classmethod
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        k: int = 2,
        pivot_image_token: int = 4,
        pivot_text_token: int = 4,
    ) -> "DART":
        """Solve the budget for a share of FLOPs, its similarities included, K given; the remainder is shared, so that every
        number of tokens can be met. The authors take K=2 in decoders of 28 and of 32 layers, so it is not scaled here."""
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
