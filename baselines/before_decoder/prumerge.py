"""LLaVA-PruMerge and PruMerge+: outliers of [CLS] attention and an even stride stay, similar tokens are merged into them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from baselines.shared.counts import part
from baselines.shared.padded import descending, marked, ranks, rows_at, selection
from baselines.shared.tower_attention import ReadsTowerLayer, dropped_after_tower, salience_macs
from fitprune import FitPruneError, Selection
from fitprune.interface.tokens import VisualTokens
from fitprune.interface.vision import Vision
from fitprune.models.sizes import tower_sizes
from fitprune.scoring.precision import in_float32

NEIGHBOURS = 32
# Tokens that stay whose similarities to all are held at a time.
BLOCK = 1024
# PruMerge+ keeps four tokens for each outlier: its stride, a third of the mean distance of outliers, adds three.
PLUS = 4


@dataclass
class PruMerge(ReadsTowerLayer):
    """LLaVA-PruMerge+ (Shang et al. 2024, arXiv 2403.15388; code github.com/42Shawn/LLaVA-PruMerge), without fine-tuning.

    Attention and keys are those of the tower's last layer, as one head of full width. The features are those that the model
    reads. PruMerge keeps the tokens that receive most of the [CLS] attention, as many as there are outliers. An outlier's
    attention is above the upper quartile plus one and a half interquartile ranges. PruMerge+ also keeps every
    int(int(1/share)/3)-th token, where share is that of the outliers. A token that stays becomes its feature plus the sum of
    the 32 tokens with the most similar keys, weighted with their attention and not normalised. Tokens that stay may be among
    the 32. One more token is the weighted sum of all tokens that go. Order: by attention, then the stride, then the sum.
    Position ids repacked. Stage: between tower and decoder. Needs one row of the tower's attention, and its keys.

    Deviations:

    - The authors take one share for a whole batch. Here each sample has its own.
    - Without an outlier, the highest attention counts as one. The stride is at least 1.
    - On tiled models, the authors work view by view. Here the prompt's views are one pool.
    - With `if_adaptive` off, the authors' code, for training, keeps a token twice that attention and stride both choose.
      Here the next token by attention moves up. The stride is no whole number, so that every count can be met exactly. Whole
      strides give 44 % and 61 % of the tokens and nothing between.
    - Merged tokens are projected in a second call of the projector.
    - In a tower without [CLS], tokens are ranked by the mean attention they receive.
    - With positions="kept", the sum has the position id of the last token that went.

    Attributes:
        if_adaptive: whether the share is that of the outliers, or `reduction_ratio`.
        reduction_ratio: share of the tokens chosen by attention. PruMerge keeps int(ratio·n) tokens, PruMerge+ int(4·ratio·n),
            three quarters of them by the stride.
        plus: whether this is PruMerge+ or PruMerge.
        layer: tower layer whose attention and keys are used, negative from the end (authors': the last).
    """

    name: ClassVar[str] = "prumerge"
    if_adaptive: bool = True
    reduction_ratio: float = 1 / 8
    plus: bool = True
    layer: int = -1

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
        tokens.spend((((kept >= 0).sum(1) + rows) * patches.sum(1)).sum() * keys.shape[-1])
        hidden = vision.project(merged, count=int(rows.sum()))
        of_all = torch.arange(names.shape[1], device=names.device) == names.shape[1] - 1
        return selection(names, hidden, of_all.expand_as(names))

    @classmethod
    def for_reduction(
        cls,
        model_config: object,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        plus: bool = True,
        layer: int = -1,
    ) -> "PruMerge":
        """Solve `reduction_ratio` for a FLOPs budget, attention, cosines, merging and projecting included."""

        def scoring(n: int, dropped: int) -> int:
            sizes, rows = tower_sizes(model_config), max(n - dropped, 2)
            return salience_macs(model_config, n) + (2 * rows - 1) * n * sizes.width + rows * sizes.projector

        method = "PruMerge+" if plus else "PruMerge"
        n, dropped = dropped_after_tower(method, model_config, reduction, visual_tokens, scoring, fewest=2)
        kept = max(n - dropped - 1, 1)
        return cls(if_adaptive=False, reduction_ratio=kept / n / (PLUS if plus else 1), plus=plus, layer=layer)


def one_head(vision: Vision, layer: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Attention and keys of a tower layer, all heads taken as one.

    Returns:
        The attention (views, P) of [CLS], or the mean attention received where there is no [CLS]; keys (views, P, width); the
        multiply-accumulates of the attention.
    """
    query, key = (in_float32(heads.transpose(1, 2).flatten(2)) for heads in (vision.query(layer), vision.key(layer)))
    rows = query[:, :1] if vision.has_cls else query
    attention = ((rows @ key.transpose(1, 2)).float() * key.shape[-1] ** -0.5).softmax(-1).mean(1)
    skip = int(vision.has_cls)
    return attention[:, skip:], key[:, skip:].float(), rows.shape[1] * key.numel()


def outliers(attention: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """The number of values (batch, n) at `patches`, bool (batch, n), above Q3 + 1.5 · (Q3 - Q1): LongTensor (batch,)."""
    values = attention.double()
    # nanquantile takes up to 2²⁴ values. The hidden states of as many visual tokens would fill more than 100 GB.
    lower, upper = values.masked_fill(~patches, torch.nan).nanquantile(values.new_tensor([0.25, 0.75]), dim=1)
    return ((values > (upper + 1.5 * (upper - lower))[:, None]) & patches).sum(1)


def adaptive_choice(attention: torch.Tensor, patches: torch.Tensor, plus: bool) -> torch.Tensor:
    """The tokens (batch, n) that stay by each sample's own share of outliers.

    Returns:
        Their indices in the authors' order, LongTensor (batch, m), padded with -1.
    """
    count = patches.sum(1)
    ratio = outliers(attention, patches).clamp(min=1).double() / count.clamp(min=1)
    top = (count * ratio).long().clamp(min=1)
    rank, number = ranks(descending(attention, patches)), patches.cumsum(1) - 1
    leading = (rank < top[:, None]) & patches
    step = ((1 / ratio).long() // 3).clamp(min=1)
    even = (number % step[:, None] == 0) & (number < count[:, None] - 1) & patches & plus
    return _ordered(leading, even & ~leading, rank)


def given_choice(attention: torch.Tensor, patches: torch.Tensor, kept: torch.Tensor, plus: bool) -> torch.Tensor:
    """`kept` (batch,) of the tokens (batch, n), at least 1; with `plus`, three quarters of them evenly spaced.

    Returns:
        The indices of those chosen by attention, then of the evenly spaced, LongTensor (batch, m), padded with -1.
    """
    count = patches.sum(1)
    kept = torch.minimum(kept.clamp(min=1), count)
    spaced = kept * 3 // 4 if plus else torch.zeros_like(kept)
    # The i-th evenly spaced token is patch number i · count // spaced: a number for which (number + 1) · spaced passes a
    # multiple of count.
    size, number = count.clamp(min=1)[:, None], patches.cumsum(1) - 1
    before, after = (-(-(number + more) * spaced[:, None] // size) for more in (0, 1))
    even = (after > before) & patches
    rank = ranks(descending(attention, patches & ~even))
    leading = (rank < (kept - spaced)[:, None]) & patches & ~even
    return _ordered(leading, even, rank)


def _ordered(leading: torch.Tensor, even: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """Indices of the leading tokens by rank, then of the even ones in prompt order, LongTensor (batch, m), padded with -1."""
    n = rank.shape[1]
    key = torch.where(leading, rank, torch.where(even, n, 2 * n))
    order = key.argsort(dim=1, stable=True)[:, : int((leading | even).sum(1).max())]
    return order.masked_fill(~(leading | even).gather(1, order), -1)


def merge(
    attention: torch.Tensor, keys: torch.Tensor, features: torch.Tensor, patches: torch.Tensor, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """PruMerge's weighted sums.

    Args:
        attention: (batch, n).
        keys: (batch, n, d).
        features: (batch, n, C).
        patches: bool (batch, n), False in padding.
        kept: LongTensor (batch, m): indices of the tokens that stay, padded with -1.

    Returns:
        Features (batch, m + 1, C) of the tokens that stay, and of the sum of all tokens that go; the index that each row is
        named by, LongTensor (batch, m + 1), -1 for none. The sum is named by the last token that goes.
    """
    n = patches.shape[1]
    gone = patches & ~marked(kept, n)
    unit = functional.normalize(keys, dim=-1)
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    blocks, sums = kept.split(BLOCK, 1), []
    for last, some in enumerate(blocks, 1 - len(blocks)):
        alike = (rows_at(unit, some) @ unit.transpose(1, 2)).masked_fill(~patches[:, None], -float("inf"))
        alike = alike.scatter(2, some.clamp(min=0)[..., None], -float("inf"))
        nearest = alike.topk(min(NEIGHBOURS, n), dim=2).indices
        near = torch.zeros_like(alike, dtype=torch.bool).scatter(2, nearest, True) & (alike > -float("inf"))
        near = torch.cat([near, gone[:, None]], 1) if last == 0 else near
        sums.append((near * attention.to(wide.dtype)[:, None]) @ wide)
    own = functional.pad(rows_at(wide, kept), (0, 0, 0, 1))
    named = torch.where(gone, torch.arange(n, device=kept.device), -1).amax(1, keepdim=True)
    return (own + torch.cat(sums, 1)).to(features.dtype), torch.cat([kept, named], 1)
