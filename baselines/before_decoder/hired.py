"""HiRED: a token budget for the whole image and each of its tiles, the most attended tokens within each."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from baselines.shared.counts import part
from baselines.shared.tower_attention import check_layers, cls_notes, dropped_before_decoder, salience_macs
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens


@dataclass
class HiRED(Pruner):
    """HiRED (Arif et al. 2024, arXiv 2408.10945; code github.com/hasanar1f/HiRED), training-free.

    Of the tokens of an image, a share stays. `alpha` of them are of the base view; the others are shared out among the tiles
    by what the base view shows where the tile is: of its patches, the (1 - alpha) that [CLS] attends to most in the tower's
    first layer vote for their tile. Within its budget, a view keeps the tokens that receive most of the head-summed
    attention of its [CLS] in the layer whose output the model reads. In prompt order, position ids repacked. An image of one
    view (as in LLaVA-1.5) has one budget. Stage: between projector and decoder. Needs one row of the attention of two
    tower layers.

    As in the authors' code, where a patch of the base view lies is told by its place in the raster alone, which is cut into
    as many equal runs as there are tiles: with 2 × 2 tiles these are bands, not the quarters that the paper speaks of.

    Deviations: shares are of the tokens in the prompt, without the padding patches that the authors count and cut off later.
    What their int() cuts off goes to the tiles with the largest remainders, what a tile has no tokens for to the others, so
    that the count is exact: their own choice is among the tokens kept. Newline tokens stay unless newlines="pruned", which
    drops them all, as the authors do. In a tower without [CLS] tokens are ranked by the mean attention they receive.

    Attributes:
        token_budget_rate: share of the tokens that stay; int(n · rate) of each image (authors' scripts: 0.2).
        alpha: share of the budget for the base view (authors' scripts: 0.5).
        first_layer, final_layer: tower layers whose attention shares out, and ranks; negative from the end (authors': 0, and
            22 of 24).
    """

    name: ClassVar[str] = "hired"
    vision: ClassVar[bool] = True
    token_budget_rate: float = 0.2
    alpha: float = 0.5
    first_layer: int = 0
    final_layer: int = -2
    positions: str = field(default="repacked", kw_only=True)

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
        # Where no image has tiles, nothing has to be shared out.
        votes = (
            torch.zeros_like(vision.base_view)
            if bool(alone.all())
            else tile_votes(vision.salience(self.first_layer), vision.base_view, self.alpha)
        )
        score = vision.of_patches(vision.salience(self.final_layer))
        return choose(score, vision.view, vision.base_view, votes, self.token_budget_rate, self.alpha)

    @classmethod
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
        cls, model_config: object, reduction: float, *, visual_tokens: int | None = None, alpha: float = 0.5
    ) -> "HiRED":
        """Solve `token_budget_rate` for a FLOPs budget, the attention rows included."""

        def scoring(n: int, dropped: int) -> int:
            tiled = getattr(model_config, "image_grid_pinpoints", None) is not None
            return (1 + tiled) * salience_macs(model_config, n)

        n, dropped = dropped_before_decoder("HiRED", model_config, reduction, visual_tokens, scoring)
        return cls(token_budget_rate=(n - dropped) / n, alpha=alpha)


def tile_votes(first: torch.Tensor, base: torch.Tensor, alpha: float) -> torch.Tensor:
    """How many of the chosen patches of its base view lie in the run of each tile: LongTensor (views,), 0 for base views.

    Args:
        first: (views, P): attention in the first layer.
        base: LongTensor (views,): the first view of the image that each view is of.
    """
    views, patches = first.shape
    order = first.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(patches, device=first.device)
    chosen = torch.zeros_like(first, dtype=torch.bool)
    chosen.scatter_(1, order, (places < int(patches * (1 - alpha) + 1e-9)).expand_as(order))
    tile = torch.arange(views, device=first.device) - base - 1
    tiles = (base.bincount(minlength=views) - 1)[base]
    return (chosen[base] & (places * tiles[:, None] // patches == tile[:, None])).sum(1)


def choose(
    score: torch.Tensor, view: torch.Tensor, base: torch.Tensor, votes: torch.Tensor, rate: float, alpha: float
) -> torch.Tensor:
    """HiRED's tokens.

    Args:
        score: (batch, n); view: LongTensor (batch, n): which view each token comes from, -1 for none.
        base, votes: LongTensor (views,): see `tile_votes`.

    Returns:
        bool (batch, n): those that stay.
    """
    views, patches = len(base), view >= 0
    image = torch.where(patches, base[view.clamp(min=0)], -1)
    tokens = _sums(patches.long(), view, views)
    budget = part(_sums(patches.long(), image, views), rate)
    is_base = base == torch.arange(views, device=base.device)
    tile_tokens = _sums((patches & (image != view)).long(), image, views)
    whole = torch.minimum(part(budget, alpha), tokens)
    # What the tiles have no tokens for is the base view's; an image without tiles has no others.
    whole = torch.maximum(whole, budget - tile_tokens) * is_base
    rest = (budget - whole) * is_base
    all_votes = torch.zeros_like(votes).index_add(0, base, votes)
    quota = rest[:, base].double() * votes / all_votes[base].clamp(min=1)
    quota = torch.where(is_base, whole.double(), quota)
    # In each view the most attended tokens first; a token whose rank is below the whole part of the quota is in, and the
    # largest remainders are next in line.
    rank = _rank_within(view, score, views)
    ahead = quota.gather(1, view.clamp(min=0)) - rank
    in_base = patches & (image == view)
    line = _rank_within(torch.where(in_base, -1, image), ahead, views)
    stays = torch.where(in_base, ahead > 0, line < rest.gather(1, image.clamp(min=0)))
    return stays & patches


def _sums(values: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """Of values (batch, n), the sum of each group (batch, n), -1 for none: (batch, groups)."""
    sums = values.new_zeros(len(values), groups + 1)
    return sums.scatter_add(1, group + 1, values)[:, 1:]


def _rank_within(group: torch.Tensor, score: torch.Tensor, groups: int) -> torch.Tensor:
    """Rank of each token (batch, n) among those of its group by descending score, the earlier of equals first: from 0."""
    order = score.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))
    sizes = _sums(torch.ones_like(group), group, groups)
    start = torch.cat([(group < 0).sum(1, keepdim=True), sizes], 1).cumsum(1)
    places = torch.arange(group.shape[1], device=group.device).expand_as(order)
    rank = torch.empty_like(order).scatter(1, order, places)
    return torch.where(group >= 0, rank - start.gather(1, group.clamp(min=0)), rank)
