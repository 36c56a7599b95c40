"""VisionZip: dominant tokens by [CLS] attention stay, and a few contextual tokens into which the rest is merged."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from baselines.shared.counts import check_counts, share
from baselines.shared.padded import highest, indices_of, marked, rows_at, selection
from baselines.shared.tower_attention import ReadsTowerLayer, dropped_after_tower, salience_macs, views_of
from fitprune import Selection
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import tower_sizes

# The authors' settings, 162 + 30, 108 + 20 and 54 + 10, all have this share of contextual tokens.
CONTEXTUAL_SHARE = 10 / 64


@dataclass
class VisionZip(ReadsTowerLayer):
    """VisionZip (Yang et al. 2024, arXiv 2412.04467; code github.com/dvlab-research/VisionZip), training-free.

    The `dominant` tokens are [CLS] itself and the patches that receive most of its head-summed attention in the tower layer
    whose output the model reads. Of the other patches, every (number // contextual)-th is a contextual token. Each patch left
    joins the contextual token with the most similar key (cosine of head-mean keys of the same layer). A contextual token
    becomes its feature plus the mean of those that joined it, before the projector. Order: [CLS], dominant, contextual tokens,
    the latter two in prompt order. Position ids repacked. Stage: between tower and decoder. Needs one row of the tower's
    attention, and its keys.

    Deviations:

    - [CLS] and contextual tokens are projected in a second call of the projector.
    - On tiled models, the authors prune every view with the same counts, and put dominant tokens of tiles before their [CLS]
      tokens. Here the prompt's views are one pool, whose dominant tokens begin with the [CLS] of each view.
    - A tower without [CLS] has only patches, ranked by the mean attention they receive.
    - With positions="kept", the [CLS] tokens have the position ids of the first patches that went.

    Attributes:
        dominant, contextual: tokens of each kind, of `visual_tokens` (authors' defaults 191 and 30).
        layer: tower layer whose attention and keys are used, negative from the end (authors': -2, the layer whose output is
            read).
        visual_tokens: the number of visual tokens that the counts refer to. Other prompts keep the same shares.
    """

    name: ClassVar[str] = "visionzip"
    dominant: int = 191
    contextual: int = 30
    layer: int = -2
    visual_tokens: int = 576

    def __post_init__(self) -> None:
        check_counts("VisionZip", {"dominant": self.dominant, "contextual": self.contextual}, self.visual_tokens)

    def before_layer(self, layer: int, tokens: VisualTokens) -> Selection | None:
        if layer != 0:
            return None
        vision = tokens.vision
        patches = vision.patch >= 0
        dominant = share(tokens.total, self.dominant, self.visual_tokens)
        both = share(tokens.total, self.dominant + self.contextual, self.visual_tokens)
        first, views = views_of(vision.view)
        cls_count = torch.minimum(views, dominant) if vision.has_cls else torch.zeros_like(views)
        score = vision.of_patches(vision.salience(self.layer))
        keys = vision.of_patches(vision.key(self.layer)[:, :, int(vision.has_cls) :].float().mean(1))
        dominants, targets, joins = choose(score, keys, patches, dominant - cls_count, both - dominant)
        merged = merge(vision.of_patches(vision.features), targets, joins)
        contextual = (targets >= 0).sum(1)
        tokens.spend((contextual * patches.sum(1)).sum() * (keys.shape[-1] + merged.shape[-1]))
        if vision.cls_features is not None:
            own = first[:, None] + torch.arange(int(cls_count.max()), device=first.device)
            merged = torch.cat([vision.cls_features[own.clamp(max=vision.views - 1)], merged], 1)
        made = vision.project(merged, count=(cls_count + contextual).sum())
        return arranged(tokens.features, tokens.present, dominants, targets, cls_count, made)

    @classmethod
    def for_reduction(
        cls, model_config: object, reduction: float, *, visual_tokens: int | None = None, layer: int = -2
    ) -> "VisionZip":
        """Solve both counts for a FLOPs budget, in the authors' ratio, with scoring, merging and projecting included."""

        def scoring(n: int, dropped: int) -> int:
            sizes = tower_sizes(model_config)
            contextual = round((n - dropped) * CONTEXTUAL_SHARE)
            made = contextual + (-(-n // sizes.patches) if sizes.has_cls else 0)
            merging = n * contextual * (sizes.width // sizes.heads + sizes.width)
            return salience_macs(model_config, n) + merging + made * sizes.projector

        n, dropped = dropped_after_tower("VisionZip", model_config, reduction, visual_tokens, scoring)
        contextual = round((n - dropped) * CONTEXTUAL_SHARE)
        return cls(dominant=n - dropped - contextual, contextual=contextual, layer=layer, visual_tokens=n)


def choose(
    score: torch.Tensor, keys: torch.Tensor, patches: torch.Tensor, dominant: torch.Tensor, contextual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """VisionZip's choice among patches.

    Args:
        score: (batch, n).
        keys: (batch, n, d).
        patches: bool (batch, n): the tokens that may be chosen.
        dominant, contextual: LongTensor (batch,): number of each, [CLS] not counted; clamped to the number of patches.

    Returns:
        The dominant tokens, bool (batch, n); the indices of the contextual ones, LongTensor (batch, m), padded with -1; bool
        (batch, m, n), which tokens join which contextual one.
    """
    dominants = highest(score, patches, dominant)
    others = patches & ~dominants
    left = others.sum(1)
    contextual = torch.minimum(contextual, left)
    step = (left // contextual.clamp(min=1)).clamp(min=1)
    rank = others.cumsum(1) - 1
    target = others & (rank % step[:, None] == 0) & (rank // step[:, None] < contextual[:, None])
    targets = indices_of(target)
    unit = functional.normalize(keys, dim=-1)
    alike = rows_at(unit, targets) @ unit.transpose(1, 2)
    joins = torch.zeros_like(alike, dtype=torch.bool)
    if targets.shape[1]:
        nearest = alike.masked_fill((targets < 0)[..., None], -float("inf")).argmax(1, keepdim=True)
        joins = joins.scatter(1, nearest, True) & (others & ~target)[:, None] & (targets >= 0)[..., None]
    return dominants, targets, joins


def merge(features: torch.Tensor, targets: torch.Tensor, joins: torch.Tensor) -> torch.Tensor:
    """Features (batch, m, C) of the contextual tokens, plus the mean of the tokens that join them.

    Args:
        features: (batch, n, C), of all tokens.
        targets, joins: see `choose`.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    mean = joins.to(wide.dtype) @ wide / joins.sum(2, keepdim=True).clamp(min=1)
    return (rows_at(wide, targets) + mean).to(features.dtype)


def arranged(
    embeds: torch.Tensor,
    present: torch.Tensor,
    dominants: torch.Tensor,
    targets: torch.Tensor,
    cls_count: torch.Tensor,
    made: torch.Tensor,
) -> Selection:
    """The `Selection` of [CLS] tokens, dominant and contextual tokens, in this order.

    [CLS] tokens are named by the first tokens that go.

    Args:
        embeds: (batch, n, H), projected features of the tokens `present`, bool (batch, n).
        dominants, targets: see `choose`.
        cls_count: LongTensor (batch,): number of [CLS] tokens.
        made: (batch, c + m, H), the projected [CLS] tokens, c the largest number of them, then the contextual tokens.
    """
    gone = present & ~dominants & ~marked(targets, present.shape[1])
    most = made.shape[1] - targets.shape[1]
    names = indices_of(gone & (gone.cumsum(1) <= cls_count[:, None]), most)
    kept = indices_of(dominants)
    hidden = torch.cat([made[:, :most], rows_at(embeds, kept), made[:, most:].to(embeds.dtype)], 1)
    of_cls = torch.arange(hidden.shape[1], device=present.device) < most
    return selection(torch.cat([names, kept, targets], 1), hidden, of_cls.expand(len(present), -1))
