"""LLaVA-PruMerge and PruMerge+: outliers of [CLS] attention, an even stride, and what is like them merged in."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch.nn import functional

from baselines.shared.counts import part
from baselines.shared.places import rows_at, selection
from baselines.shared.tower_attention import ReadsTowerLayer, dropped_before_decoder, salience_macs
from fitprune import FitPruneError, Selection
from fitprune.interface.tokens import VisualTokens
from fitprune.interface.vision import Vision
from fitprune.models.sizes import tower_sizes

NEIGHBOURS = 32
# An even stride that is a third of the distance between outliers adds three tokens for each of them.
PLUS = 4


@dataclass
class PruMerge(ReadsTowerLayer):
    """LLaVA-PruMerge+ (Shang et al. 2024, arXiv 2403.15388; code github.com/42Shawn/LLaVA-PruMerge), without fine-tuning.

    Attention and keys are the tower's last layer's, as one head of full width; the features are those that the model reads. A
    share of the tokens stays that receive most of the [CLS] attention: that of its outliers, above the upper quartile plus
    one and a half interquartile ranges. PruMerge+ adds every int(int(1/share)/3)-th token. Each of them becomes its feature
    plus the sum, weighted with their attention and not normalised, of the 32 tokens with the most similar keys, those that
    stay included; one more token is that sum over all that go. Order: by attention, then the stride, then the sum; position
    ids repacked. Stage: between tower and decoder. Needs one row of the tower's attention, and its keys.

    Deviations: the authors take one share for a whole batch, here each sample has its own; where there is no outlier, one
    token counts as one; the stride is at least 1. On tiled models they work view by view, here the prompt's views are one
    pool. With `if_adaptive` off, their code keeps a token twice that both ways choose, for training; here the next one by
    attention moves up, and the stride is not cut to whole numbers, so that counts are exact and every count can be had
    (with whole strides, one can have 44 % and 61 % of the tokens and nothing between). Merged tokens are projected in a
    second call of the projector. A tower without [CLS] is ranked by the mean attention its patches receive. With
    positions="kept" the sum has the id of the last token that went.

    Attributes:
        if_adaptive: the share is that of the outliers; else `reduction_ratio`.
        reduction_ratio: share of the tokens chosen by attention; PruMerge+ keeps int(4 · ratio · n), of which three quarters
            evenly, PruMerge int(ratio · n).
        plus: PruMerge+ or PruMerge.
        layer: tower layer whose attention and keys are used, negative from the end (authors': the last).
    """

    name: ClassVar[str] = "prumerge"
    if_adaptive: bool = True
    reduction_ratio: float = 1 / 8
    plus: bool = True
    layer: int = -1
    positions: str = field(default="repacked", kw_only=True)

    def __post_init__(self) -> None:
        most = 1 / PLUS if self.plus else 1
        if not 0 < self.reduction_ratio <= most:
            method = "PruMerge+" if self.plus else "PruMerge"
            raise FitPruneError(f"reduction_ratio must be above 0 and up to {most:g} for {method}, not {self.reduction_ratio}.")

    def before_layer(self, layer: int, tokens: VisualTokens) -> Selection | None:
        if layer != 0:
            return None
        vision = tokens.vision
        patches = vision.patch >= 0
        attention, keys, macs = one_head(vision, self.layer)
        tokens.spend(macs)
        attention, keys = vision.of_patches(attention), vision.of_patches(keys)
        if self.if_adaptive:
            kept = adaptive_choice(attention, patches, self.plus)
        else:
            kept = given_choice(
                attention, patches, part(patches.sum(1), self.reduction_ratio * (PLUS if self.plus else 1)), self.plus
            )
        merged, names = merge(attention, keys, vision.of_patches(vision.features), patches, kept)
        rows = (names >= 0).sum(1)
        tokens.spend(int((((kept >= 0).sum(1) + rows) * patches.sum(1)).sum()) * keys.shape[-1])
        hidden = vision.project(merged, count=int(rows.sum()))
        of_all = torch.arange(names.shape[1], device=names.device) == names.shape[1] - 1
        return selection(names, hidden, of_all.expand_as(names))

    @classmethod
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
        cls,
        model_config: object,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        plus: bool = True,
        layer: int = -1,
    ) -> "PruMerge":
        """Solve `reduction_ratio` for a FLOPs budget; attention, cosines, merging and projecting included."""

        def scoring(n: int, dropped: int) -> int:
            sizes, rows = tower_sizes(model_config), max(n - dropped, 2)
            return salience_macs(model_config, n) + (2 * rows - 1) * n * sizes.width + rows * sizes.projector

        method = "PruMerge+" if plus else "PruMerge"
        n, dropped = dropped_before_decoder(method, model_config, reduction, visual_tokens, scoring, fewest=2)
        kept = max(n - dropped - 1, 1)
        return cls(if_adaptive=False, reduction_ratio=kept / n / (PLUS if plus else 1), plus=plus, layer=layer)


def one_head(vision: Vision, layer: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Attention (views, P) of [CLS], or the mean received, and keys (views, P, width), with all heads as one; MACs spent."""
    query, key = (part.transpose(1, 2).flatten(2) for part in (vision.query(layer), vision.key(layer)))
    rows = query[:, :1] if vision.has_cls else query
    attention = ((rows @ key.transpose(1, 2)).float() * key.shape[-1] ** -0.5).softmax(-1).mean(1)
    skip = int(vision.has_cls)
    return attention[:, skip:], key[:, skip:].float(), rows.shape[1] * key.numel()


def outliers(attention: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """How many of the values (batch, n) at `patches` lie above Q3 + 1.5 · (Q3 - Q1): LongTensor (batch,)."""
    values = attention.double()
    ordered = values.masked_fill(~patches, float("inf")).sort(dim=1).values
    lower, upper = (_quantile(ordered, patches.sum(1), share) for share in (0.25, 0.75))
    return ((values > (upper + 1.5 * (upper - lower))[:, None]) & patches).sum(1)


def _quantile(ordered: torch.Tensor, count: torch.Tensor, share: float) -> torch.Tensor:
    """Of the first `count` (batch,) of ascending values (batch, n), between neighbours by straight line: (batch,)."""
    place = (count - 1).clamp(min=0).double() * share
    low = place.long()[:, None]
    below, above = ordered.gather(1, low), ordered.gather(1, torch.minimum(low + 1, (count - 1).clamp(min=0)[:, None]))
    return torch.lerp(below, above, place[:, None] - low)[:, 0]


def adaptive_choice(attention: torch.Tensor, patches: torch.Tensor, plus: bool) -> torch.Tensor:
    """Which tokens (batch, n) stay by their own ratio of outliers.

    Returns:
        Their places in the authors' order: LongTensor (batch, m), padded with -1 on the right.
    """
    count = patches.sum(1)
    ratio = outliers(attention, patches).clamp(min=1).double() / count.clamp(min=1)
    top = (count * ratio).long().clamp(min=1)
    rank, place = _ranks(attention, patches)
    leading = (rank < top[:, None]) & patches
    step = ((1 / ratio).long() // 3).clamp(min=1)
    even = (place % step[:, None] == 0) & (place < count[:, None] - 1) & patches & plus
    return _ordered(leading, even & ~leading, rank, place)


def given_choice(attention: torch.Tensor, patches: torch.Tensor, kept: torch.Tensor, plus: bool) -> torch.Tensor:
    """`kept` (batch,) of the tokens (batch, n), at least 1; with `plus`, three quarters of them evenly spaced.

    Returns:
        Their places, by attention, then the even ones: LongTensor (batch, m), padded with -1 on the right.
    """
    count = patches.sum(1)
    kept = torch.minimum(kept.clamp(min=1), count)
    spaced = kept * 3 // 4 if plus else torch.zeros_like(kept)
    rank, place = _ranks(attention, patches)
    # The i-th of them lies at i · count // spaced: places at which (place + 1) · spaced passes a multiple of count.
    size = count.clamp(min=1)[:, None]
    before, after = (-(-(place + more) * spaced[:, None] // size) for more in (0, 1))
    even = (after > before) & patches
    rank, _ = _ranks(attention, patches & ~even)
    leading = (rank < (kept - spaced)[:, None]) & patches & ~even
    return _ordered(leading, even, rank, place)


def _ranks(attention: torch.Tensor, among: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the tokens (batch, n) that `among` names: rank by descending attention, and by place; both from 0."""
    order = attention.masked_fill(~among, -float("inf")).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter(1, order, places), among.cumsum(1) - 1


def _ordered(leading: torch.Tensor, even: torch.Tensor, rank: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Places of the leading tokens by rank, then of the even ones by place: LongTensor (batch, m), -1 behind."""
    n = rank.shape[1]
    key = torch.where(leading, rank, torch.where(even, n + place, 2 * n))
    ordered = key.sort(dim=1)
    most = int((leading | even).sum(1).max())
    return ordered.indices.masked_fill(ordered.values == 2 * n, -1)[:, :most]


def merge(
    attention: torch.Tensor, keys: torch.Tensor, features: torch.Tensor, patches: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """PruMerge's sums.

    Args:
        attention: (batch, n); keys: (batch, n, d); features: (batch, n, C).
        patches: bool (batch, n): the tokens there are.
        kept: LongTensor (batch, m): places of those that stay, padded with -1 on the right.

    Returns:
        What they become, (batch, m + 1, C), in the last row the sum of all that went; the places that these rows are named
        by, LongTensor (batch, m + 1), the sum's being the last token that went; -1 where there is none.
    """
    n = patches.shape[1]
    stays = torch.zeros(len(kept), n + 1, dtype=torch.bool, device=kept.device).scatter(1, kept + 1, True)[:, 1:]
    gone = patches & ~stays
    unit = functional.normalize(keys, dim=-1)
    alike = (rows_at(unit, kept) @ unit.transpose(1, 2)).masked_fill(~patches[:, None], -float("inf"))
    alike = alike.scatter(2, kept.clamp(min=0)[..., None], -float("inf"))
    nearest = alike.topk(min(NEIGHBOURS, n), dim=2).indices
    near = torch.zeros_like(alike, dtype=torch.bool).scatter(2, nearest, True) & (alike > -float("inf"))
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    weights = torch.cat([near, gone[:, None]], 1) * attention.to(wide.dtype)[:, None]
    own = functional.pad(rows_at(wide, kept), (0, 0, 0, 1))
    last = torch.where(gone, torch.arange(n, device=kept.device), -1).amax(1, keepdim=True)
    return (own + weights @ wide).to(features.dtype), torch.cat([kept, last], 1)
