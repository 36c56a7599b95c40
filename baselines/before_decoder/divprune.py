"""DivPrune: the visual tokens stay that are farthest from one another."""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from baselines.shared.budget import dropped_before_decoder
from baselines.shared.choosing import greedy
from baselines.shared.padded import rows_at
from baselines.shared.repacked import RepackedWherePossible
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes


@dataclass
class DivPrune(RepackedWherePossible):
    """DivPrune (Alvar et al., CVPR 2025, arXiv 2503.02175; code github.com/vbdi/divprune), training-free.

    round(n·subset_ratio) visual tokens stay, chosen for the largest minimal distance between any two. Distance is one minus
    the cosine of projected embeddings. The first token chosen is the one farthest from its nearest neighbour. Then, one by
    one, the token follows that is farthest from those chosen. Survivors stand in prompt order, position ids repacked. All
    visual tokens of a prompt are one pool, as the authors treat the tiles of a picture. Stage: before the decoder. Needs
    neither attention nor [CLS].

    Deviations:

    - Distances are float32 (the authors': the model's half precision).
    - A token is never chosen twice. The authors' code may do so where only duplicates are left.
    - The authors' pool holds LLaVA-NeXT's newline tokens, as here with `newlines="pruned"`.
    - Position ids on three axes cannot be numbered anew. `for_reduction` keeps the ids of such models.

    Attributes:
        subset_ratio: share of the visual tokens to keep, at least 0 and below 1 (authors' default 0.098).
    """

    name: ClassVar[str] = "divprune"
    text_degree = 0
    subset_ratio: float = 0.098

    def __post_init__(self) -> None:
        if not 0 <= self.subset_ratio < 1:
            raise FitPruneError(f"subset_ratio is a share of the visual tokens, from 0 to below 1, not {self.subset_ratio}.")

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        keep = (tokens.total.double() * self.subset_ratio).round().long()
        tokens.spend((tokens.count**2).sum() * tokens.hidden.shape[-1])
        return farthest(tokens.features, tokens.present, keep)

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "DivPrune":
        """Solve `subset_ratio` for a FLOPs budget, the n² cosines included."""
        sizes = DecoderSizes.of(model_config)

        def scoring(n: int, dropped: int) -> int:
            return n**2 * sizes.hidden_size

        n, dropped = dropped_before_decoder("DivPrune", model_config, reduction, visual_tokens, scoring)
        return cls((n - dropped) / n, positions=cls.own_positions(model_config))


@torch.no_grad()
def farthest(features: torch.Tensor, present: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """DivPrune's choice, bool (batch, n): `keep` (batch,) of the tokens `present` (batch, n), by features (batch, n, d).

    Distances of more than `greedy.WHOLE` tokens are not held: they are computed in blocks, and once more for those tokens
    that are likely to be next.
    """
    unit = functional.normalize(features.float(), dim=-1)
    nearest, distance = torch.full_like(unit[..., 0], torch.inf), unit.new_empty(len(unit), 0, 0)
    parts = list(zip(unit.split(greedy.WHOLE, 1), nearest.split(greedy.WHOLE, 1), present.split(greedy.WHOLE, 1), strict=True))
    for first, (rows, row_nearest, row_present) in enumerate(parts):
        for other, (columns, column_nearest, column_present) in enumerate(parts[first:], first):
            cosine = rows @ columns.mT
            # The matrix is made exactly symmetric, so that two tokens which are each other's nearest tie, in every batch.
            distance = (cosine + (cosine.mT if first == other else cosine)).div_(-2).add_(1)
            if first == other:
                distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
            else:
                column_nearest.copy_(column_nearest.minimum(distance.masked_fill(~row_present[..., None], torch.inf).amin(1)))
            row_nearest.copy_(row_nearest.minimum(distance.masked_fill_(~column_present[:, None], torch.inf).amin(2)))
    nearest.masked_fill_(~present, -torch.inf)
    if len(parts) > 1:
        return greedy.farthest_of_many(functools.partial(_distances, unit), nearest, keep)
    distance.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return greedy.farthest(distance, nearest, keep)


def _distances(unit: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Distances (batch, m, n) of tokens (batch, m) to all, of unit vectors (batch, n, d); -inf to itself."""
    return (rows_at(unit, tokens) @ unit.mT).neg_().add_(1).scatter_(2, tokens[..., None], -torch.inf)
