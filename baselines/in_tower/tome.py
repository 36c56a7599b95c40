"""ToMe: similar patches are merged, a few pairs in every layer of the vision tower."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch.nn import functional

from baselines.shared.budget import nearest_choice
from baselines.shared.repacked import Repacked
from fitprune import FitPruneError, Selection, TowerTokens, UnsupportedModel
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes, TowerSizes, tower_sizes

ORDERS = ("prompt", "tower")


@dataclass
class ToMe(Repacked):
    """Token merging (Bolya et al., ICLR 2023, arXiv 2210.09461; code github.com/facebookresearch/ToMe), training-free.

    After the attention of every layer of the vision tower, its t tokens are split into even and odd ones, by their index.
    Each even token is paired with the odd token of most similar key (cosine of head-mean keys). The r most similar pairs
    merge, at most half of the tokens, to a mean weighted by the number of patches that each token stands for, its size. From
    there on, attention adds log(size). [CLS] is never merged. A merged token is named by its odd one. Stage: in the tower.
    Needs keys only.

    Deviations:

    - The authors apply ToMe to classifiers, which need no order of tokens. Here a decoder reads them in the order of the prompt
      (`order="prompt"`), or in that of the authors' code (`order="tower"`): in each layer, unmerged even tokens first.
    - Position ids are repacked, as in a shorter prompt.
    - The authors' schedule by inflection is written out as a list of r.
    - On LLaVA-NeXT, the tower also merges the padding of a tile. A token named by a patch of padding is not in the prompt.
    - LLaVA-HR, whose adapters work on the grid of tokens between layers, is refused.

    Attributes:
        r: pairs to merge in every layer (authors' default for ViT-L: 8), or a list with one number per layer. Layers beyond
            its end merge none.
        order: "prompt" or "tower".
    """

    name: ClassVar[str] = "tome"
    r: int | list[int] = 8
    order: str = "prompt"

    def __post_init__(self) -> None:
        numbers = self.r if isinstance(self.r, list) else [self.r]
        if min(numbers, default=0) < 0 or max(numbers, default=0) == 0:
            raise FitPruneError(f"r is the number of pairs to merge, above 0 (in some layer), not {self.r}.")
        if self.order not in ORDERS:
            raise FitPruneError(f"order must be one of {', '.join(ORDERS)}, not {self.order!r}.")

    def pairs(self, layer: int) -> int:
        """The number of pairs to merge in a layer of the tower."""
        if isinstance(self.r, int):
            return self.r
        return self.r[layer] if layer < len(self.r) else 0

    def after_tower_attention(self, layer: int, tower: TowerTokens) -> TowerTokens | None:
        has_cls = int(tower.has_cls)
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
    def for_reduction(
        cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None, order: str = "prompt"
    ) -> "ToMe":
        """Solve `r` for a budget of decoder FLOPs, matching included. The tower's saving is not counted.

        The schedule is even, see `even_schedule`. The last layers merge one pair less where that meets the budget better.
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
    """Pairs per layer: r in every layer up to the one that is read, or half of the layer's tokens where that is less."""
    present, pairs = tower.tokens, []
    for _ in range(tower.feature_layer + 1):
        pairs.append(min(r, (present - tower.has_cls) // 2))
        present -= pairs[-1]
    return pairs


def schedule(tower: TowerSizes, merged: int) -> list[int]:
    """Pairs per layer, `merged` in all: the even schedule of least r, with one pair less in its last layers."""
    r = next(r for r in range(1, tower.tokens) if sum(even_schedule(tower, r)) >= merged)
    pairs = even_schedule(tower, r)
    over = sum(pairs) - merged
    merging = [layer for layer, count in enumerate(pairs) if count]
    for layer in merging[len(merging) - over :]:
        pairs[layer] -= 1
    return pairs


class Match(NamedTuple):
    """The tokens of each view that merge.

    Attributes:
        stays, goes: LongTensors (views, …): the even tokens that stay, and those that merge, numbered among the even ones.
        into: LongTensor (views, r): the odd token that each of `goes` merges into, numbered among the odd ones.
    """

    stays: torch.Tensor
    goes: torch.Tensor
    into: torch.Tensor


def matched(metric: torch.Tensor, r: int, *, protected: bool) -> Match:
    """ToMe's matching of r pairs by `metric` (views, t, d); with `protected`, the first token ([CLS]) never merges."""
    unit = functional.normalize(metric.float(), dim=-1)
    scores = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    best, into = scores.max(-1)
    if protected:
        best[:, 0] = -torch.inf
    order = best.argsort(dim=1, descending=True, stable=True)
    goes, stays = order[:, :r], order[:, r:]
    # With a [CLS], the authors sort the tokens that stay, so that it comes first.
    return Match(stays.sort(dim=1).values if protected else stays, goes, into.gather(1, goes))


def merge(hidden: torch.Tensor, size: torch.Tensor, patch_index: torch.Tensor, match: Match) -> TowerTokens:
    """The tokens after merging: the even ones that stay, then all odd ones.

    Args:
        hidden: (views, t, d).
        size: (views, t), patches that each token stands for.
        patch_index: LongTensor (views, t): the patch that each token is named by.
    """
    weight = size.float()
    total = _summed(hidden.float() * weight[..., None], match)
    weight = _summed(weight[..., None], match)
    named = torch.cat([patch_index[:, ::2].gather(1, match.stays), patch_index[:, 1::2]], 1)
    return TowerTokens((total / weight).to(hidden.dtype), None, weight[..., 0].to(size.dtype), named)


def _summed(values: torch.Tensor, match: Match) -> torch.Tensor:
    """Values (views, t, d) of the even tokens that stay, then of the odd ones, each summed with the tokens merged into it."""
    even, odd = values[:, ::2], values[:, 1::2]

    def wide(index: torch.Tensor) -> torch.Tensor:
        return index[..., None].expand(-1, -1, values.shape[-1])

    odd = odd.scatter_add(1, wide(match.into), even.gather(1, wide(match.goes)))
    return torch.cat([even.gather(1, wide(match.stays)), odd], 1)
