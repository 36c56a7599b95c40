"""DivPrune: the visual tokens stay that are farthest from one another."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from baselines.shared.budget import dropped_before_decoder
from baselines.shared.padded import first_picks
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


def farthest(features: torch.Tensor, present: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """DivPrune's choice, bool (batch, n): `keep` (batch,) of the tokens `present` (batch, n), by features (batch, n, d)."""
    unit = functional.normalize(features.float(), dim=-1)
    cosine = unit @ unit.transpose(1, 2)
    # The matrix is made exactly symmetric, so that two tokens which are each other's nearest tie, in every batch.
    distance = 1 - (cosine + cosine.transpose(1, 2)) / 2
    # nearest[i] is first the distance from i to its nearest neighbour, later to the nearest chosen token; the next pick
    # maximises it. It is -inf for a chosen token, because the distance of a token to itself is set to -inf.
    itself = torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    nearest = distance.masked_fill(itself | ~present[:, None], torch.inf).amin(2).masked_fill(~present, -torch.inf)
    distance = distance.masked_fill(itself, -torch.inf)
    samples, picks = torch.arange(len(present), device=present.device), []
    for step in range(int(keep.max())):
        picks.append(nearest.argmax(1))
        reached = distance[samples, picks[-1]]
        nearest = reached.masked_fill(~present, -torch.inf) if step == 0 else torch.minimum(nearest, reached)
    return first_picks(picks, keep, present.shape[1])
