"""ToMe: patches that are alike are merged, a few in every layer of the vision tower."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch.nn import functional

from baselines.shared.budget import nearest_choice
from fitprune import FitPruneError, Pruner, Selection, TowerTokens, UnsupportedModel
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes, TowerSizes, tower_sizes

ORDERS = ("prompt", "tower")


@dataclass
class ToMe(Pruner):
    """Token merging (Bolya et al., ICLR 2023, arXiv 2210.09461; code github.com/facebookresearch/ToMe), training-free.

    After the attention of every layer of the vision tower, its t tokens are split into those at even and those at odd places;
    each even one is joined to the odd one of most similar key (cosine of the head-mean keys), and the r most similar pairs
    merge, at most half of the tokens, to their mean weighted by how many patches each stands for. Attention adds log(size)
    from there on; [CLS] is never merged. Stage: in the tower. Needs keys only. A merged token is named by its odd one.

    Deviations: the authors apply it to classifiers and leave open in which order a decoder reads what is left. Here that is
    the order of the prompt (`order="prompt"`); "tower" is the order in which their code puts tokens together, the unmerged even
    ones first, layer upon layer. Position ids repacked, as a shorter prompt has them. A schedule by inflection is written out
    as a list. On LLaVA-NeXT the tower merges the padding of a tile like all else; a token named by a patch of padding is not
    in the prompt. LLaVA-HR mixes the tower's tokens on their grid between layers: it is refused there.

    Attributes:
        r: pairs to merge in every layer (authors' default for ViT-L 8), or a list with one number per layer, of which later
            layers than it names merge none.
        order: "prompt" or "tower".
    """

    name: ClassVar[str] = "tome"
    r: int | list[int] = 8
    order: str = "prompt"
    positions: str = field(default="repacked", kw_only=True)

    def __post_init__(self) -> None:
        numbers = self.r if isinstance(self.r, list) else [self.r]
        if min(numbers, default=0) < 0 or max(numbers, default=0) == 0:
            raise FitPruneError(f"r is the number of pairs to merge, above 0 (in some layer), not {self.r}.")
        if self.order not in ORDERS:
            raise FitPruneError(f"order must be one of {', '.join(ORDERS)}, not {self.order!r}.")

    def pairs(self, layer: int) -> int:
        """How many are to be merged in a layer of the tower."""
        if isinstance(self.r, int):
            return self.r
        return self.r[layer] if layer < len(self.r) else 0

    def after_tower_attention(self, layer: int, tower: TowerTokens) -> TowerTokens | None:
        has_cls = int(tower.patch_index[0, 0] < 0)
        count = tower.hidden.shape[1]
        r = min(self.pairs(layer), (count - has_cls) // 2)
        if r <= 0:
            return None
        assert tower.key is not None
        match = matched(tower.key.mean(1), r, protected=bool(has_cls))
        merged = merge(tower.hidden, tower.size, tower.patch_index, match)
        views, _, _, width = tower.key.shape
        merged.spend(views * -(-count // 2) * (count // 2) * width)
        return merged

    def before_layer(self, layer: int, tokens: VisualTokens) -> Selection | None:
        if layer != 0 or self.order == "tower":
            return None
        last = torch.iinfo(torch.long).max
        order = tokens.original.masked_fill(~tokens.present, last).argsort(dim=1)
        return Selection(order.masked_fill(~tokens.present, -1))

    @classmethod
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
        cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None, order: str = "prompt"
    ) -> "ToMe":
        """Solve r for a budget of decoder FLOPs, its matching included; what the tower saves comes on top.

        The same number of pairs in every layer that is read, as far as half of the tokens allow, and one less in the last
        ones where that meets the budget better.
        """
        tower = tower_sizes(model_config)
        if tower.mixes:
            raise UnsupportedModel(
                f"ToMe merges tokens between the tower's layers; that of a {model_config.model_type} model mixes them on their "
                "grid there, so they must stay."
            )
        layers, head = DecoderSizes.of(model_config).layers, tower.width // tower.heads

        def scoring(n: int, merged: int) -> int:
            present, macs = tower.tokens, 0
            for pairs in schedule(tower, merged):
                macs += -(-present // 2) * (present // 2) * head if pairs else 0
                present -= pairs
            return round(n / tower.patches * macs)

        most = sum(even_schedule(tower, tower.tokens))
        _, merged = nearest_choice(
            "ToMe",
            model_config,
            reduction,
            visual_tokens,
            range(1, most + 1),
            entering=lambda n, merged: [round(n * (tower.patches - merged) / tower.patches)] * layers,
            scoring=scoring,
        )
        return cls(schedule(tower, merged), order)


def even_schedule(tower: TowerSizes, r: int) -> list[int]:
    """r pairs in every layer up to the one that is read, as far as half of the tokens allow."""
    present, pairs = tower.tokens, []
    for _ in range(tower.feature_layer + 1):
        pairs.append(min(r, (present - tower.has_cls) // 2))
        present -= pairs[-1]
    return pairs


def schedule(tower: TowerSizes, merged: int) -> list[int]:
    """The even schedule that merges at least so many pairs in all, with one pair less in its last layers for what is over."""
    r = next(r for r in range(1, tower.tokens) if sum(even_schedule(tower, r)) >= merged)
    pairs = even_schedule(tower, r)
    over = sum(pairs) - merged
    merging = [layer for layer, count in enumerate(pairs) if count]
    for layer in merging[len(merging) - over :]:
        pairs[layer] -= 1
    return pairs


class Match(NamedTuple):
    """Which tokens of a view merge: places among the even ones that stay, those that go, and the odd ones these go into."""

    stays: torch.Tensor
    goes: torch.Tensor
    into: torch.Tensor


def matched(metric: torch.Tensor, r: int, *, protected: bool) -> Match:
    """ToMe's bipartite matching of r pairs by metric (views, t, d); `protected`: the first token, [CLS], does not merge."""
    unit = functional.normalize(metric.float(), dim=-1)
    scores = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    best, into = scores.max(-1)
    if protected:
        best[:, 0] = -torch.inf
    order = best.argsort(dim=1, descending=True, stable=True)
    goes, stays = order[:, :r], order[:, r:]
    # The authors sort those that stay where there is a [CLS], to have it first.
    return Match(stays.sort(dim=1).values if protected else stays, goes, into.gather(1, goes))


def merge(hidden: torch.Tensor, size: torch.Tensor, patch_index: torch.Tensor, match: Match) -> TowerTokens:
    """Tokens hidden (views, t, d), size and patch_index (views, t), merged: the even ones that stay, then all odd ones."""
    weight = size.float()
    total = _summed(hidden.float() * weight[..., None], match)
    weight = _summed(weight[..., None], match)
    named = torch.cat([patch_index[:, ::2].gather(1, match.stays), patch_index[:, 1::2]], 1)
    return TowerTokens((total / weight).to(hidden.dtype), None, weight[..., 0].to(size.dtype), named)


def _summed(values: torch.Tensor, match: Match) -> torch.Tensor:
    """Values (views, t, d) of the even tokens that stay, and of the odd ones with what goes into them."""
    even, odd = values[:, ::2], values[:, 1::2]

    def wide(index: torch.Tensor) -> torch.Tensor:
        return index[..., None].expand(-1, -1, values.shape[-1])

    odd = odd.scatter_add(1, wide(match.into), even.gather(1, wide(match.goes)))
    return torch.cat([even.gather(1, wide(match.stays)), odd], 1)
