"""SCOPE: salient visual tokens stay that together cover all others."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from baselines.shared.choosing import greedy
from baselines.shared.counts import check_counts, share
from baselines.shared.repacked import Repacked
from baselines.shared.tower_attention import check_layers, cls_notes, dropped_after_tower, salience_macs
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import tower_sizes

LAYER = -2
"""The tower layer whose attention is the salience, counted from the end."""


@dataclass
class SCOPE(Repacked):
    """SCOPE (Deng et al., NeurIPS 2025, arXiv 2510.24214; code github.com/kinredon/SCOPE), training-free.

    SCOPE chooses patches of each view one by one. The gain of patch j is the sum over all patches i of max(0, cosine(i, j) -
    the highest cosine of i to a chosen patch), times the salience of j to the power of alpha. The patch of highest gain is
    next. Cosines are those of the tower's features. Salience is the head-mean attention of [CLS] in the last tower layer but
    one. Survivors stand in prompt order, position ids repacked. Stage: before the decoder. Needs [CLS] attention. Where the
    tower has no [CLS], the salience of a patch is the mean attention it receives, and the result says so.

    SCOPE is this project's method of 2025-26. Its authors report it ahead of the methods they compare it with. It joins the
    ideas of two methods here (VisionZip's salience, DivPrune's diversity). It needs nothing that a LLaVA checkpoint does not
    hold, whereas CDPruner needs CLIP's text encoder.

    Deviations:

    - Computed in float32.
    - The authors give each view of a LLaVA-NeXT picture the same number of tokens, padding among them. Here each view keeps
      the same share of its patches in the prompt.
    - The authors drop all newlines. Here newlines stay; `newlines="pruned"` drops them.
    - The authors' variant that adds salience instead of multiplying is left out.

    Attributes:
        num_token: visual tokens that stay, of `visual_tokens` (64 in the authors' example).
        alpha: exponent of the salience (authors' default 1.0).
        visual_tokens: the number that num_token refers to. Other numbers keep the same share, rounded view by view.
    """

    name: ClassVar[str] = "scope"
    vision: ClassVar[bool] = True
    num_token: int = 64
    alpha: float = 1.0
    visual_tokens: int = 576

    def __post_init__(self) -> None:
        check_counts("SCOPE", {"num_token": self.num_token}, self.visual_tokens)
        if self.alpha < 0:
            raise FitPruneError(f"alpha, the exponent of the salience, must not be negative, got {self.alpha}.")

    def check(self, model: nn.Module) -> None:
        check_layers(self, model, LAYER)

    def notes(self, model: nn.Module) -> list[str]:
        return cls_notes(self, model)

    def observed_tower_layers(self, layers: int) -> Collection[int]:
        return [LAYER]

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        vision = tokens.vision
        count = vision.in_prompt.sum(1)
        keep = share(count, self.num_token, self.visual_tokens)
        tokens.spend((count**2).sum() * vision.features.shape[-1])
        salience = vision.salience(LAYER) ** self.alpha
        return vision.of_patches(covering(vision.features, salience, vision.in_prompt, keep))

    @classmethod
    def for_reduction(
        cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None, alpha: float = 1.0
    ) -> "SCOPE":
        """Solve `num_token` for a FLOPs budget, cosines and attention included."""
        tower = tower_sizes(model_config)

        def scoring(n: int, dropped: int) -> int:
            return n * tower.patches * tower.width + salience_macs(model_config, n)

        n, dropped = dropped_after_tower("SCOPE", model_config, reduction, visual_tokens, scoring)
        return cls(n - dropped, alpha, n)


@torch.no_grad()
def covering(features: torch.Tensor, salience: torch.Tensor, there: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """SCOPE's choice, bool (views, P): `keep` (views,) patches of each view.

    Args:
        features: (views, P, d).
        salience: (views, P), the factor of each patch's gain.
        there: bool (views, P): the patches in the prompt.
    """
    unit = functional.normalize(features.float(), dim=-1)
    return greedy.covering(unit @ unit.mT, salience, there, keep)
