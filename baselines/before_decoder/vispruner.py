"""VisPruner: part of the tokens by [CLS] attention, the rest by taking duplicates away."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch.nn import functional

from baselines.shared.counts import check_counts, part, share
from baselines.shared.tower_attention import ReadsTowerLayer, dropped_before_decoder, salience_macs, views_of
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import tower_sizes

PER_ROUND = 8


@dataclass
class VisPruner(ReadsTowerLayer):
    """VisPruner (Zhang et al. 2025, arXiv 2412.01818 v2; code github.com/Theia-4869/VisPruner), training-free.

    Of `visual_token_num` tokens, `important_ratio` are those that [CLS] attends to most (head-mean, in the tower layer
    whose output the model reads). The others are what duplicate removal leaves: the list of the rest, by descending
    attention, is split into even and odd places; the eight evens go that are most alike to an odd one (cosine of the
    tower's features); the evens left, most alike first, and the odds are the next round's list. In prompt order, position
    ids repacked. Stage: between projector and decoder. Needs one row of the tower's attention.

    Deviations: all cosines are computed once, not in every round. The authors' code fails on a list of odd length, and where
    eight are to go of fewer evens; here the evens are then one more than the odds, and as many go as there are. On tiled
    models the authors prune every view by itself, eight in a round; here a prompt's views are one pool, of which eight times
    as many as it has views go in a round. In a tower without [CLS] tokens are ranked by the mean attention they receive, as
    the authors advise (their issue 1).

    Attributes:
        visual_token_num: tokens that stay, of `visual_tokens`; the authors' default keeps all, 128 is their first example.
        important_ratio: share of them chosen by attention (authors' default 0.5).
        layer: tower layer whose attention ranks, negative from the end (authors': -2, the one whose output is read).
        visual_tokens: the number of visual tokens that the count is of; prompts with another number keep the same share.
    """

    name: ClassVar[str] = "vispruner"
    visual_token_num: int = 128
    important_ratio: float = 0.5
    layer: int = -2
    visual_tokens: int = 576
    positions: str = field(default="repacked", kw_only=True)

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
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
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
            keep = n - dropped
            important = int(keep * important_ratio + 1e-9)
            rest = n - important if keep > important and dropped else 0
            return salience_macs(model_config, n) + rest**2 * tower_sizes(model_config).width

        n, dropped = dropped_before_decoder("VisPruner", model_config, reduction, visual_tokens, scoring)
        return cls(visual_token_num=n - dropped, important_ratio=important_ratio, layer=layer, visual_tokens=n)


def choose(
    score: torch.Tensor,
    features: torch.Tensor,
    patches: torch.Tensor,
    keep: torch.Tensor,
    important_ratio: float,
    per_round: torch.Tensor,
) -> tuple[torch.Tensor, int]:
    """VisPruner's rule.

    Args:
        score: (batch, n); features: (batch, n, C).
        patches: bool (batch, n): the tokens to choose from; no others stay.
        keep: LongTensor (batch,): how many stay, clamped to what is there.
        per_round: LongTensor (batch,): how many duplicates go in a round.

    Returns:
        bool (batch, n): those that stay; the multiply-accumulates of the cosines.
    """
    batch, n = score.shape
    count = patches.sum(1)
    keep = keep.clamp(max=count)
    important = part(keep, important_ratio)
    order = score.masked_fill(~patches, -float("inf")).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(n, device=score.device).expand(batch, n)
    # The list of the rest by its own numbers; where all of it stays, or none, it has nothing to lose.
    wanted, left = (keep - important).cpu(), (count - important).cpu()
    length = torch.where(wanted > 0, left, 0)
    macs = int((length**2)[length > wanted].sum()) * features.shape[-1]
    end = int(length.max())
    listed = places[:, :end].masked_fill(places[:, :end] >= length.to(score.device)[:, None], end)
    rounds = removals(length, wanted, per_round.cpu())
    if rounds:
        token = order.gather(1, (places[:, :end] + important[:, None]).clamp(max=n - 1))
        alike = _cosines(features.gather(1, token[..., None].expand(-1, -1, features.shape[-1])))
        # What stands behind the end of a list is like nothing.
        alike = functional.pad(alike, (0, 1, 0, 1), value=-float("inf"))
        for fewer, gone in zip(rounds, torch.stack(rounds).to(score.device), strict=True):
            length = length - fewer
            listed = _remove(listed, alike, gone, end)[:, : int(length.max())]
    diverse = torch.zeros(batch, n + 1, dtype=torch.bool, device=score.device)
    diverse.scatter_(1, torch.where(listed < end, listed + important[:, None], n), True)
    chosen = diverse[:, :n] | (places < important[:, None])
    return torch.zeros_like(patches).scatter(1, order, chosen) & patches, macs


def removals(length: torch.Tensor, wanted: torch.Tensor, per_round: torch.Tensor) -> list[torch.Tensor]:
    """How many go of lists of `length` in each round, until they are as short as `wanted`; all (batch,)."""
    rounds = []
    while bool((length > wanted).any()):
        rounds.append(torch.minimum(length - wanted, torch.minimum((length + 1) // 2, per_round)).clamp(min=0))
        length = length - rounds[-1]
    return rounds


def _remove(listed: torch.Tensor, alike: torch.Tensor, gone: torch.Tensor, end: int) -> torch.Tensor:
    """One round: of the lists (batch, m), padded with `end`, the `gone` (batch,) most redundant at even places leave."""
    evens, odds = listed[:, ::2], listed[:, 1::2]
    rows = torch.arange(len(listed), device=listed.device)[:, None, None]
    nearest = alike[rows, evens[:, :, None], odds[:, None]].amax(2)
    evens = evens.gather(1, nearest.argsort(dim=1, descending=True, stable=True))
    leaving = torch.arange(evens.shape[1], device=listed.device) < gone[:, None]
    listed = torch.cat([evens.masked_fill(leaving, end), odds], 1)
    return listed.gather(1, (listed == end).byte().argsort(dim=1, stable=True))


def _cosines(features: torch.Tensor) -> torch.Tensor:
    """Between all pairs of (batch, n, C): (batch, n, n), in float32 at least."""
    unit = functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
    return unit @ unit.transpose(1, 2)
