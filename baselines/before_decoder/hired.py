"""HiRED: a token budget for the base view and for each tile of an image, and the most attended tokens within each."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from baselines.shared.counts import part
from baselines.shared.padded import group_sums, highest, ranks_in_groups
from baselines.shared.repacked import Repacked
from baselines.shared.tower_attention import check_layers, cls_notes, dropped_after_tower, salience_macs
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens


@dataclass
class HiRED(Repacked):
    """HiRED (Arif et al. 2024, arXiv 2408.10945; code github.com/hasanar1f/HiRED), training-free.

    An image of n tokens has a budget of int(n·token_budget_rate) tokens. A share `alpha` of the budget goes to the base view,
    the rest to the tiles, in proportion to votes. The (1 - alpha) of the base view's patches that its [CLS] attends to most
    in the tower's first layer vote for the tile they lie in. Within its budget, a view keeps the tokens that receive most of
    the head-summed attention of its [CLS] in the layer whose output the model reads. Survivors stand in prompt order,
    position ids repacked. An image of one view (as in LLaVA-1.5) has one budget. Stage: between projector and decoder. Needs
    one attention row of each of two tower layers.

    As in the authors' code, the base view's patches, in raster order, are cut into as many equal runs as there are tiles, and
    run i votes for tile i. With 2 × 2 tiles the runs are horizontal bands, not the quarters of the paper.

    Deviations:

    - Shares refer to the tokens in the prompt. The authors also count padding patches, which they cut off later.
    - The count is exact. Tokens that the authors lose to int() go to the tiles with the largest remainders, and budget that
      a tile has no tokens for goes to the others. The authors' choice is among the tokens kept.
    - Newline tokens stay. `newlines="pruned"` drops them all, as the authors do.
    - In a tower without [CLS], tokens are ranked by the mean attention they receive.

    Attributes:
        token_budget_rate: share of an image's tokens that stays (authors' scripts: 0.2).
        alpha: share of the budget for the base view (authors' scripts: 0.5).
        first_layer: tower layer whose attention votes, negative from the end (authors': 0).
        final_layer: tower layer whose attention ranks, negative from the end (authors': 22 of 24).
    """

    name: ClassVar[str] = "hired"
    vision: ClassVar[bool] = True
    token_budget_rate: float = 0.2
    alpha: float = 0.5
    first_layer: int = 0
    final_layer: int = -2

    def __post_init__(self) -> None:
        for name in ("token_budget_rate", "alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise FitPruneError(f"HiRED's {name} is a share, 0 to 1, not {getattr(self, name)}.")

    def check(self, model: nn.Module) -> None:
        super().check(model)
        check_layers(self, model, self.first_layer, self.final_layer)

    def notes(self, model: nn.Module) -> list[str]:
        return cls_notes(self, model)

    def observed_tower_layers(self, layers: int) -> Collection[int]:
        return [self.first_layer, self.final_layer]

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        vision = tokens.vision
        alone = vision.base_view == torch.arange(vision.views, device=vision.base_view.device)
        # Without tiles, there is nothing to vote for.
        votes = (
            torch.zeros_like(vision.base_view)
            if bool(alone.all())
            else tile_votes(vision.salience(self.first_layer), vision.base_view, self.alpha)
        )
        score = vision.of_patches(vision.salience(self.final_layer))
        return choose(score, vision.view, vision.base_view, votes, self.token_budget_rate, self.alpha)

    @classmethod
    def for_reduction(
        cls, model_config: object, reduction: float, *, visual_tokens: int | None = None, alpha: float = 0.5
    ) -> "HiRED":
        """Solve `token_budget_rate` for a FLOPs budget, attention rows included."""

        def scoring(n: int, dropped: int) -> int:
            tiled = getattr(model_config, "image_grid_pinpoints", None) is not None
            return (1 + tiled) * salience_macs(model_config, n)

        n, dropped = dropped_after_tower("HiRED", model_config, reduction, visual_tokens, scoring)
        return cls(token_budget_rate=(n - dropped) / n, alpha=alpha)


def tile_votes(first: torch.Tensor, base: torch.Tensor, alpha: float) -> torch.Tensor:
    """The votes of base views' patches for each tile: LongTensor (views,), 0 for base views.

    Args:
        first: (views, P), attention of [CLS] in the first layer.
        base: LongTensor (views,): the base view of each view's image.
    """
    views, patches = first.shape
    voters = part(torch.full_like(base, patches), 1 - alpha)
    votes = highest(first, torch.ones_like(first, dtype=torch.bool), voters)
    tile = torch.arange(views, device=first.device) - base - 1
    tiles = (base.bincount(minlength=views) - 1)[base]
    run = torch.arange(patches, device=first.device) * tiles[:, None] // patches
    return (votes[base] & (run == tile[:, None])).sum(1)


def choose(
    score: torch.Tensor, view: torch.Tensor, base: torch.Tensor, votes: torch.Tensor, rate: float, alpha: float
) -> torch.Tensor:
    """HiRED's choice, bool (batch, n).

    Args:
        score: (batch, n), attention of [CLS] in the final layer.
        view: LongTensor (batch, n): the view that each token comes from, -1 for none.
        base, votes: LongTensor (views,): see `tile_votes`.
        rate, alpha: `token_budget_rate` and `alpha`.
    """
    views, patches = len(base), view >= 0
    image = torch.where(patches, base[view.clamp(min=0)], -1)
    tokens = group_sums(patches.long(), view, views)
    budget = part(group_sums(patches.long(), image, views), rate)
    is_base = base == torch.arange(views, device=base.device)
    tile_tokens = group_sums((patches & (image != view)).long(), image, views)
    whole = torch.minimum(part(budget, alpha), tokens)
    # Budget that all tiles together have no tokens for goes to the base view, the only view of an image without tiles.
    whole = torch.maximum(whole, budget - tile_tokens) * is_base
    rest = (budget - whole) * is_base
    all_votes = torch.zeros_like(votes).index_add(0, base, votes)
    quota = rest[:, base].double() * votes / all_votes[base].clamp(min=1)
    quota = torch.where(is_base, whole.double(), quota)
    # `ahead` is a token's view's quota minus its rank in the view. All tiles of an image share the rest of the budget by
    # falling `ahead`: first come the tokens within the whole part of their quota, then those of the largest remainders.
    ahead = quota.gather(1, view.clamp(min=0)) - ranks_in_groups(score, view, views)
    in_base = patches & (image == view)
    line = ranks_in_groups(ahead, torch.where(in_base, -1, image), views)
    stays = torch.where(in_base, ahead > 0, line < rest.gather(1, image.clamp(min=0)))
    return stays & patches
