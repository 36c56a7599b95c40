"""HoloV: every strip of the visual tokens keeps as many as its attention is worth."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from baselines.shared.counts import check_counts, share
from baselines.shared.padded import descending, group_sums, highest, ranks, ranks_in_groups
from baselines.shared.tower_attention import ReadsTowerLayer, dropped_after_tower, salience_macs
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens


@dataclass
class HoloV(ReadsTowerLayer):
    """HoloV (Zou et al., NeurIPS 2025, arXiv 2510.02912; code github.com/obananas/HoloV), training-free.

    The visual tokens, in prompt order, are cut into `num_patches` strips of equal length, the first ones longer by one where
    needed. Of `new_image_token_num` tokens, a strip's budget is the share that its mean attention has of all strips' means,
    rounded down; what is left goes one each to the strips of highest means. In its budget, a strip keeps the tokens of highest
    attention: the head-mean attention of [CLS] in the tower layer whose output the model reads. Survivors stand in prompt
    order, position ids repacked. Stage: between projector and decoder. Needs one row of the tower's attention.

    The paper scores a strip by attention and by the variance of similarities inside it. In the authors' code
    (`qwen-model-HoloV/utils.py`) the variance is scaled to the mean attention of its own strip before means are taken. So it
    adds the same 9 % to every strip and cancels: a strip's score is its mean attention, as here.

    Deviations:

    - In the authors' code, budget beyond a strip's length becomes rows of zeros. Here it goes to the other strips, one token
      each by falling means, round by round.
    - The authors' survivors stand in the order of attention in their strip. Here they stand in prompt order.
    - In the authors' code, the score of a strip of one token is a thousandth of what it is for others. Here it is the same.
    - The authors' LLaVA code imports a module that is not in their repository, so its tower layer is not known. Here it is
      that of FasterVLM, whose code theirs is made from.
    - In a tower without [CLS], tokens are ranked by the mean attention they receive.

    Attributes:
        new_image_token_num: tokens that stay, of `visual_tokens` (64 in the authors' code).
        num_patches: number of strips (authors': 16).
        layer: tower layer whose attention ranks, negative from the end.
        visual_tokens: the number of visual tokens that the count refers to. Other prompts keep the same share.
    """

    name: ClassVar[str] = "holov"
    new_image_token_num: int = 64
    num_patches: int = 16
    layer: int = -2
    visual_tokens: int = 576

    def __post_init__(self) -> None:
        check_counts("HoloV", {"new_image_token_num": self.new_image_token_num}, self.visual_tokens)
        if self.num_patches < 1:
            raise FitPruneError(f"HoloV cuts the visual tokens into one strip at least, not {self.num_patches}.")

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        score = tokens.vision.of_patches(tokens.vision.salience(self.layer))
        keep = share(tokens.total, self.new_image_token_num, self.visual_tokens)
        return choose(score, tokens.present, keep, self.num_patches)

    @classmethod
    def for_reduction(
        cls, model_config: object, reduction: float, *, visual_tokens: int | None = None, num_patches: int = 16, layer: int = -2
    ) -> "HoloV":
        """Solve `new_image_token_num` for a FLOPs budget, the attention row included."""

        def scoring(n: int, dropped: int) -> int:
            return salience_macs(model_config, n)

        n, dropped = dropped_after_tower("HoloV", model_config, reduction, visual_tokens, scoring)
        return cls(n - dropped, num_patches, layer, n)


def choose(score: torch.Tensor, present: torch.Tensor, keep: torch.Tensor, strips: int) -> torch.Tensor:
    """HoloV's choice, bool (batch, n): `keep` (batch,) of the tokens `present` (batch, n), by score (batch, n)."""
    strip = strip_of(present, strips)
    sizes = group_sums(present.long(), strip, strips)
    mean = group_sums(score.double(), strip, strips) / sizes.clamp(min=1)
    weight = mean / mean.sum(1, keepdim=True).clamp(min=torch.finfo(mean.dtype).tiny)
    budget = (weight * keep[:, None]).long()
    left = keep - budget.sum(1)
    budget += ranks(descending(weight, sizes > 0)) < left[:, None]
    # `ahead` is above 0 for the tokens within their strip's budget. Budget that strips have no tokens for goes to the next
    # tokens in line, of strips as far behind as each other to those of higher weight.
    ahead = (budget + weight / 2).gather(1, strip.clamp(min=0)) - ranks_in_groups(score, strip, strips)
    return highest(ahead, present, keep)


def strip_of(present: torch.Tensor, strips: int) -> torch.Tensor:
    """LongTensor (batch, n): the strip of each token present, counted from 0; -1 for padding, which stands on the right."""
    count = present.sum(1, keepdim=True)
    size, longer = count // strips, count % strips
    number = torch.arange(present.shape[1], device=present.device)
    after = longer + (number - longer * (size + 1)) // size.clamp(min=1)
    return torch.where(number < longer * (size + 1), number // (size + 1), after).masked_fill(~present, -1)
