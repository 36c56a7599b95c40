"""VisPruner: part of the visual tokens stay by [CLS] attention, the rest by removal of duplicates."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from baselines.shared.choosing.rounds import distinct
from baselines.shared.counts import check_counts, part, share
from baselines.shared.padded import descending, marked, rows_at
from baselines.shared.tower_attention import ReadsTowerLayer, dropped_after_tower, salience_macs, views_of
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import tower_sizes

PER_ROUND = 8


@dataclass
class VisPruner(ReadsTowerLayer):
    """VisPruner (Zhang et al. 2025, arXiv 2412.01818 v2; code github.com/Theia-4869/VisPruner), training-free.

    A share `important_ratio` of the tokens that stay are those that [CLS] attends to most (head-mean, in the tower layer
    whose output the model reads). Removal of duplicates finds the others. Its list is the rest by falling attention. In each
    round, the list is split into its even and odd entries, and the eight evens go that are most similar to an odd one (cosine
    of the tower's features). The evens left, most similar first, and then the odds are the next round's list. Survivors stand
    in prompt order, position ids repacked. Stage: between projector and decoder. Needs one row of the tower's attention.

    Deviations:

    - All cosines are computed once, not in every round.
    - The authors' code fails on a list of odd length, and where there are fewer than eight evens. Here the evens may be one
      more than the odds, and as many go as there are.
    - On tiled models, the authors prune every view by itself, eight tokens a round. Here a prompt's views are one pool, which
      loses eight tokens per view in a round.
    - In a tower without [CLS], tokens are ranked by the mean attention they receive, as the authors advise (their issue 1).

    Attributes:
        visual_token_num: tokens that stay, of `visual_tokens`. The authors' default keeps all; 128 is their first example.
        important_ratio: share of these that attention chooses (authors' default 0.5).
        layer: tower layer whose attention ranks, negative from the end (authors': -2, the layer whose output is read).
        visual_tokens: the number of visual tokens that the count refers to. Other prompts keep the same share.
    """

    name: ClassVar[str] = "vispruner"
    visual_token_num: int = 128
    important_ratio: float = 0.5
    layer: int = -2
    visual_tokens: int = 576

    def __post_init__(self) -> None:
        check_counts("VisPruner", {"visual_token_num": self.visual_token_num}, self.visual_tokens)
        if not 0 <= self.important_ratio <= 1:
            raise FitPruneError(f"important_ratio is a share of the tokens that stay, 0 to 1, not {self.important_ratio}.")

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        vision = tokens.vision
        score = vision.of_patches(vision.salience(self.layer))
        keep = share(tokens.total, self.visual_token_num, self.visual_tokens)
        _, views = views_of(vision.view)
        features, patches = vision.of_patches(vision.features), vision.patch >= 0
        mask, macs = choose(score, features, patches, keep, self.important_ratio, PER_ROUND * views)
        tokens.spend(macs)
        return mask

    @classmethod
    def for_reduction(
        cls,
        model_config: object,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        important_ratio: float = 0.5,
        layer: int = -2,
    ) -> "VisPruner":
        """Solve `visual_token_num` for a FLOPs budget, attention row and cosines included."""

        def scoring(n: int, dropped: int) -> int:
            return spent(model_config, n, n - dropped, important_ratio)

        n, dropped = dropped_after_tower("VisPruner", model_config, reduction, visual_tokens, scoring)
        return cls(visual_token_num=n - dropped, important_ratio=important_ratio, layer=layer, visual_tokens=n)


def spent(model_config: object, n: int, keep: int, important_ratio: float) -> int:
    """The multiply-accumulates of choosing `keep` of n tokens: the attention row, and the cosines."""
    important = int(keep * important_ratio + 1e-9)
    rest = n - important if n > keep > important else 0
    return salience_macs(model_config, n) + rest**2 * tower_sizes(model_config).width


def choose(
    score: torch.Tensor,
    features: torch.Tensor,
    patches: torch.Tensor,
    keep: torch.Tensor,
    important_ratio: float,
    per_round: torch.Tensor,
) -> tuple[torch.Tensor, int]:
    """VisPruner's choice.

    Args:
        score: (batch, n).
        features: (batch, n, C).
        patches: bool (batch, n): the tokens that may stay.
        keep: LongTensor (batch,): number of tokens that stay, clamped to the number of patches.
        per_round: LongTensor (batch,): number of duplicates that go in a round.

    Returns:
        The tokens that stay, bool (batch, n); the multiply-accumulates of the cosines.
    """
    batch, n = score.shape
    count = patches.sum(1)
    keep = keep.clamp(max=count)
    important = part(keep, important_ratio)
    order = descending(score, patches)
    ranking = torch.arange(n, device=score.device).expand(batch, n)
    wanted, left, per_round_of = torch.stack([keep - important, count - important, per_round]).tolist()
    # Length of the candidate list for duplicate removal; 0 if no candidate has to be kept.
    lengths = [most if some > 0 else 0 for most, some in zip(left, wanted, strict=True)]
    macs = sum(most**2 for most, some in zip(lengths, wanted, strict=True) if most > some) * features.shape[-1]
    place = ranking[:, : max(lengths)] + important[:, None]
    listed = distinct(rows_at(features, order.gather(1, place.clamp(max=n - 1))), lengths, wanted, per_round_of)
    diverse = marked(torch.where(listed, place, -1), n)
    chosen = diverse | (ranking < important[:, None])
    return torch.zeros_like(patches).scatter(1, order, chosen) & patches, macs
