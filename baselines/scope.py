"""SCOPE: salient visual tokens that together cover all others."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from baselines.budget import fewest_dropped
from fitprune import BudgetError, FitPruneError, Pruner, UnsupportedModel
from fitprune.anatomy import anatomy
from fitprune.sizes import DecoderSizes, TowerSizes, tower_sizes
from fitprune.view import VisualTokens


@dataclass
class Scope(Pruner):
    """SCOPE (Deng et al., NeurIPS 2025, arXiv 2510.24214; code github.com/kinredon/SCOPE), training-free.

    Of each view's patches those are chosen, one by one, that add most to what the chosen ones cover, weighted by salience:
    the gain of patch j is the sum over all patches i of max(0, cosine(i, j) - the highest cosine of i to a chosen patch), times
    the attention that [CLS] pays to j, to the power of alpha. Cosines are those of the tower's features; attention is that of
    the last tower layer but one, over all heads. In prompt order, position ids repacked. Stage: before the decoder. Needs
    [CLS] attention; where the tower has no [CLS], the mean attention that a patch receives stands in, and the result says so.

    Chosen as this project's method of 2025-26: it leads its paper's comparison, joins the two ideas of the methods
    beside it (VisionZip's salience, DivPrune's diversity), and needs nothing that a LLaVA checkpoint does not hold, whereas
    CDPruner asks for CLIP's text encoder.

    Deviations: computed in float32. The authors give each view of a LLaVA-NeXT picture the same number of tokens, padding
    among them, and leave out all newlines; here each keeps the same share of those patches that are in the prompt, and newlines
    stay (with `newlines="pruned"` they go). Their variant that adds salience instead of multiplying is left out.

    Attributes:
        num_token: visual tokens to keep of `visual_tokens` (64 in the authors' example).
        alpha: exponent of the salience (authors' default 1.0).
        visual_tokens: what num_token is of; another number of patches keeps the same share, rounded view by view.
    """

    name: ClassVar[str] = "scope"
    vision: ClassVar[bool] = True
    num_token: int = 64
    alpha: float = 1.0
    visual_tokens: int = 576
    positions: str = field(default="repacked", kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.num_token < self.visual_tokens:
            raise FitPruneError(f"num_token must be below visual_tokens, got {self.num_token} of {self.visual_tokens}.")
        if self.alpha < 0:
            raise FitPruneError(f"alpha, the exponent of the salience, must not be negative, got {self.alpha}.")

    def check(self, model: nn.Module) -> None:
        if tower_sizes(anatomy(model).parent.config).layers < 2:
            raise FitPruneError("SCOPE reads the attention of the last tower layer but one; this tower has a single layer.")

    def notes(self, model: nn.Module) -> list[str]:
        if tower_sizes(anatomy(model).parent.config).has_cls:
            return []
        return ["no [CLS] in this tower: salience is the mean attention received"]

    def observed_tower_layers(self, layers: int) -> Collection[int]:
        return [layers - 2]

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        vision = tokens.vision
        views, patches = vision.features.shape[:2]
        there = tokens.present.new_zeros(views, patches)
        known = vision.view >= 0
        there[vision.view[known], vision.patch[known]] = True
        count = there.sum(1)
        keep = (count.double() * self.num_token / self.visual_tokens).round().long()
        tokens.spend(int((count**2).sum()) * vision.features.shape[-1])
        return vision.of_patches(covering(vision.features, vision.salience(-2) ** self.alpha, there, keep))

    @classmethod
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
        cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None, alpha: float = 1.0
    ) -> "Scope":
        """Solve num_token for a FLOPs budget; cosines and attention are paid for."""
        try:
            tower = tower_sizes(model_config)
        except UnsupportedModel as error:
            raise BudgetError(f"SCOPE cannot run here: {error}") from None
        layers = DecoderSizes.of(model_config).layers
        n, dropped = fewest_dropped(
            "SCOPE",
            model_config,
            reduction,
            visual_tokens,
            entering=lambda n, dropped: [n - dropped] * layers,
            scoring=lambda n, dropped: n / tower.patches * view_macs(tower),
        )
        return cls(n - dropped, alpha, n)


def view_macs(tower: TowerSizes) -> int:
    """What choosing among the patches of a whole view takes: their cosines, and one row of attention, or all of them."""
    rows = 1 if tower.has_cls else tower.patches
    return tower.patches**2 * tower.width + rows * tower.tokens * tower.width


def covering(features: torch.Tensor, salience: torch.Tensor, there: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """SCOPE's choice of `keep` (views,) patches among those `there`: bool (views, P).

    Args:
        features: (views, P, d); salience: (views, P), what gains are multiplied by; there: bool (views, P).
    """
    unit = functional.normalize(features.float(), dim=-1)
    cosine = (unit @ unit.transpose(1, 2)) * there[:, :, None]
    covered = torch.zeros_like(salience, dtype=torch.float32)
    chosen = torch.zeros_like(there)
    views = torch.arange(len(there), device=there.device)
    for step in range(int(keep.max())):
        gain = (cosine - covered[..., None]).clamp(min=0).sum(1) * salience
        best = gain.masked_fill(~there | chosen, -torch.inf).argmax(1)
        chosen[views, best] |= keep > step
        covered = torch.maximum(covered, cosine[views, :, best])
    return chosen & there
