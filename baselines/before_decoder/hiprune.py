"""HiPrune: anchors of a middle layer of the tower with their neighbours, and the most attended tokens of a deep one."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from baselines.shared.counts import check_counts, share
from baselines.shared.padded import highest
from baselines.shared.repacked import Repacked
from baselines.shared.tower_attention import check_layers, dropped_after_tower
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import tower_sizes


@dataclass
class HiPrune(Repacked):
    """HiPrune (Liu et al. 2025, arXiv 2508.00553; code github.com/Danielement321/HiPrune), training-free.

    Of the `retention` patches of a view that stay, round(retention·alpha/5) are anchors: those that receive most attention in
    the tower's layer number `object_layer`. With them stay the patches before and after each anchor, and those above and below
    it. The rest are the patches that receive most attention in the layer whose output the model reads. Attention received is
    the mean over heads and over the rows of all tokens, [CLS] among them. Survivors stand in prompt order, position ids
    repacked. Stage: between projector and decoder. Needs the attention maps of two tower layers, but no [CLS].

    As in the authors' code, patches are numbered through, so an anchor at the end of a row has the first patch of the next row
    as its neighbour, and the number of a neighbour beyond the view is that of the first or the last patch. A view that keeps
    few tokens (fewer than 26 at alpha 0.1) has no anchor.

    Deviations:

    - The authors' code fails where anchors and neighbours are more than stay (alpha near 1). Here anchors go first, then the
      neighbours that receive most attention in the deep layer.
    - The authors give each view of a LLaVA-NeXT picture the same number of tokens, padding among them. Here each view keeps
      the same share of its patches in the prompt.
    - The authors count rows of 24 patches. Here they are the tower's.
    - Computed in float32.
    - Towers of CLIP's and SigLIP's form. The authors also run Qwen2.5-VL's, by its layer 16 of 32.

    Attributes:
        retention: tokens that stay, of `visual_tokens` (192 in the authors' scripts).
        alpha: share of these that are anchors and neighbours, 0 to 1 (authors': 0.1).
        object_layer: the tower layer of the anchors, counted from 1 (authors': 9 of CLIP's 24).
        layer: tower layer of the rest, negative from the end (authors': -2, the layer whose output is read).
        visual_tokens: the number that `retention` refers to. Other numbers keep the same share, rounded view by view.
    """

    name: ClassVar[str] = "hiprune"
    vision: ClassVar[bool] = True
    retention: int = 192
    alpha: float = 0.1
    object_layer: int = 9
    layer: int = -2
    visual_tokens: int = 576

    def __post_init__(self) -> None:
        check_counts("HiPrune", {"retention": self.retention}, self.visual_tokens)
        if not 0 <= self.alpha <= 1:
            raise FitPruneError(f"HiPrune's alpha is a share of the tokens that stay, 0 to 1, not {self.alpha}.")
        if self.object_layer < 1:
            raise FitPruneError(f"HiPrune's object_layer is counted from 1, and cannot be {self.object_layer}.")

    def check(self, model: nn.Module) -> None:
        super().check(model)
        check_layers(self, model, self.object_layer - 1, self.layer)

    def observed_tower_layers(self, layers: int) -> Collection[int]:
        return [self.object_layer - 1, self.layer]

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        vision = tokens.vision
        shallow, deep = (vision.received_attention(at, of_all=True) for at in (self.object_layer - 1, self.layer))
        keep = share(vision.in_prompt.sum(1), self.retention, self.visual_tokens)
        return vision.of_patches(choose(shallow, deep, vision.in_prompt, keep, self.alpha, vision.grid[1]))

    @classmethod
    def for_reduction(
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        alpha: float = 0.1,
        object_layer: int | None = None,
    ) -> "HiPrune":
        """Solve `retention` for a FLOPs budget, attention maps included. The object layer is scaled to the tower's depth."""

        def scoring(n: int, dropped: int) -> int:
            sizes = tower_sizes(model_config)
            return 2 * -(-n // sizes.patches) * sizes.tokens**2 * sizes.width

        n, dropped = dropped_after_tower("HiPrune", model_config, reduction, visual_tokens, scoring)
        scaled = max(1, round(cls.object_layer * tower_sizes(model_config).layers / 24))
        return cls(n - dropped, alpha, object_layer or scaled, visual_tokens=n)


def choose(
    shallow: torch.Tensor, deep: torch.Tensor, there: torch.Tensor, keep: torch.Tensor, alpha: float, width: int
) -> torch.Tensor:
    """HiPrune's choice, bool (views, P): `keep` (views,) patches of each view.

    Args:
        shallow, deep: (views, P), attention received in the object layer and in the deep layer, at most 1.
        there: bool (views, P): the patches in the prompt.
        alpha: the share of anchors and neighbours.
        width: patches of a row.
    """
    anchors = highest(shallow, there, (keep.double() * alpha / 5).round().long()).long()
    number = torch.arange(there.shape[1], device=there.device)
    places = torch.cat([(number + step).clamp(0, len(number) - 1) for step in (0, -1, 1, -width, width)])
    chosen = torch.zeros_like(anchors).index_add(1, places, anchors.repeat(1, 5)) > 0
    # Whatever the attention, an anchor comes before a neighbour, and a neighbour before the rest.
    return highest(deep + 2 * chosen + 2 * anchors, there, keep)
