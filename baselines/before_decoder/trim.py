"""TRIM: the visual tokens stay that stand out in CLIP's similarity to the question, and one token for the rest."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from baselines.shared.padded import highest, indices_of, rows_at, selection
from baselines.shared.questions import clip_macs, in_clip, require_clip
from baselines.shared.repacked import Repacked
from baselines.shared.tower_attention import dropped_after_tower
from fitprune import FitPruneError, Selection
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import tower_sizes


@dataclass
class TRIM(Repacked):
    """TRIM, Token Reduction using CLIP Metric (Song et al., COLING 2025, arXiv 2409.10994; code
    github.com/FreedomIntelligence/TRIM).

    The score of a patch is the softmax, over the prompt's patches, of the negated product of its embedding in CLIP's space with
    that of the question. Patches of a score above Q3 + 1.5·(Q3 - Q1) stay, Q1 and Q3 being the quartiles of all scores, or
    int(n·share) of highest score. One token is put after them: the mean of all others' features of the tower, projected.
    Position ids are repacked. Stage: between projector and decoder. Needs CLIP's text tower.

    As in the authors' code, the product is negated, and neither side is normalised. The question holds the instruction for the
    form of the answer, and is cut at CLIP's limit of 77 tokens.

    Deviations:

    - The authors' quartiles, and the number of tokens that they give, are those of the whole batch. Here they are a prompt's.
    - The authors' code fails where no score is an outlier. Here the mean of all patches stays alone.
    - All patches of a prompt are one pool. The authors' code takes one view a prompt.
    - Where all patches stay, the authors add a row of zeros. Here nothing is added.
    - The authors also train the decoder on what is left. Here it is as it is.

    Attributes:
        share: share of the visual tokens that stay beside the mean of the others, 0 to 1; None for the outliers (authors': -1).
    """

    name: ClassVar[str] = "trim"
    vision: ClassVar[bool] = True
    share: float | None = None

    def __post_init__(self) -> None:
        if self.share is not None and not 0 <= self.share <= 1:
            raise FitPruneError(f"TRIM's share is that of the visual tokens that stay, 0 to 1, or None, not {self.share}.")

    def check(self, model: nn.Module) -> None:
        super().check(model)
        require_clip(model, self)

    def before_layer(self, layer: int, tokens: VisualTokens) -> Selection | None:
        if layer != 0:
            return None
        vision, there = tokens.vision, tokens.vision.patch >= 0
        patches, texts = in_clip(tokens, tokens.question)
        score = -(vision.of_patches(patches) @ texts[..., None])[..., 0]
        tokens.spend(there.sum() * texts.shape[1])
        score = score.masked_fill(~there, -torch.inf).softmax(1)
        count = there.sum(1)
        keep = outliers(score, there) if self.share is None else (count.double() * self.share + 1e-9).long()
        stays = highest(score, there, keep)
        others = there & ~stays
        features = vision.of_patches(vision.features).float()
        mean = (features * others[..., None]).sum(1) / others.sum(1, keepdim=True).clamp(min=1)
        made = vision.project(mean[:, None].to(vision.features.dtype), count=len(mean))
        # The mean is named by the first token that it stands for.
        name = torch.where(others.any(1), others.byte().argmax(1), -1)[:, None]
        kept = indices_of(stays)
        hidden = torch.cat([rows_at(tokens.features, kept), made.to(tokens.hidden.dtype)], 1)
        index = torch.cat([kept, name], 1)
        return selection(
            index, hidden, (torch.arange(index.shape[1], device=index.device) == kept.shape[1]).expand(index.shape)
        )

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "TRIM":
        """Solve `share` for a FLOPs budget, CLIP's text tower on a short question and the mean's projection included."""

        def scoring(n: int, dropped: int) -> int:
            return clip_macs(model_config, n) + tower_sizes(model_config).projector

        n, dropped = dropped_after_tower("TRIM", model_config, reduction, visual_tokens, scoring, fewest=1)
        return cls(share=max(n - dropped - 1, 0) / n)


def outliers(score: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """LongTensor (batch,): scores (batch, n) `among`, bool (batch, n), above the third quartile by 1.5 times their distance."""
    ordered = score.masked_fill(~among, torch.inf).sort(1).values
    last = (among.sum(1, keepdim=True) - 1).clamp(min=0)

    def quantile(share: float) -> torch.Tensor:
        place = last.double() * share
        below, above = ordered.gather(1, place.long()), ordered.gather(1, place.ceil().long())
        return below + (above - below) * (place - place.floor()).to(score.dtype)

    low, high = quantile(0.25), quantile(0.75)
    return ((score > high + 1.5 * (high - low)) & among).sum(1)
