"""DivPrune: the visual tokens that are farthest from one another."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from baselines.shared.budget import fewest_dropped
from baselines.shared.greedy import first_picks
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens
from fitprune.models.parts import has_axes
from fitprune.models.sizes import DecoderSizes


@dataclass
class DivPrune(Pruner):
    """DivPrune (Alvar et al., CVPR 2025, arXiv 2503.02175; code github.com/vbdi/divprune), training-free.

    Before the decoder, round(n·subset_ratio) visual tokens stay, chosen for the largest minimal distance (one minus the cosine
    of projected embeddings) between any two: first the token that is farthest from its nearest neighbour, then, one by one,
    the token that is farthest from those chosen. In prompt order, position ids repacked. Stage: before the decoder. Needs no
    attention and no [CLS]. All visual tokens of a prompt are one pool, as the authors have it for the tiles of a picture.

    Deviations: distances are taken in float32 (the authors' in the model's half precision), and a chosen token is never
    chosen again (theirs may be where all that is left are duplicates). The authors' pool holds LLaVA-NeXT's newline tokens;
    `newlines="pruned"` is that. On models with position ids on three axes, which cannot be numbered anew, `for_reduction`
    keeps them.

    Attributes:
        subset_ratio: share of the visual tokens to keep, at least 0 and below 1 (authors' default 0.098).
    """

    name: ClassVar[str] = "divprune"
    subset_ratio: float = 0.098
    positions: str = field(default="repacked", kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.subset_ratio < 1:
            raise FitPruneError(f"subset_ratio is a share of the visual tokens, from 0 to below 1, not {self.subset_ratio}.")

    def notes(self, model: nn.Module) -> list[str]:
        kept = has_axes(model.config) and self.positions == "kept"
        return ["position ids are kept: this model's, on three axes, cannot be numbered anew as the authors do"] if kept else []

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        keep = (tokens.total.double() * self.subset_ratio).round().long()
        tokens.spend(int((tokens.count**2).sum()) * tokens.hidden.shape[-1])
        return farthest(tokens.features, tokens.present, keep)

    @classmethod
    def for_reduction(  # type: ignore[override]  # its options by name: a misspelt one is an error
        cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None
    ) -> "DivPrune":
        """Solve subset_ratio for a FLOPs budget; n² · hidden size of it go into the cosines."""
        sizes = DecoderSizes.of(model_config)
        n, dropped = fewest_dropped(
            "DivPrune",
            model_config,
            reduction,
            visual_tokens,
            entering=lambda n, dropped: [n - dropped] * sizes.layers,
            scoring=lambda n, dropped: n**2 * sizes.hidden_size,
        )
        return cls((n - dropped) / n, positions="kept" if has_axes(model_config) else "repacked")


def farthest(features: torch.Tensor, present: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """DivPrune's choice of `keep` (batch,) among features (batch, n, d), those with `present` (batch, n): bool (batch, n)."""
    unit = functional.normalize(features.float(), dim=-1)
    cosine = unit @ unit.transpose(1, 2)
    # Exactly symmetric: of two tokens that are each other's nearest the first is picked first, in every batch.
    distance = 1 - (cosine + cosine.transpose(1, 2)) / 2
    # No token is near to itself: what the next pick is the highest of starts as the distance to the nearest other token, and
    # goes on as that to the nearest chosen one, which is lowest for those chosen.
    itself = torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    nearest = distance.masked_fill(itself | ~present[:, None], torch.inf).amin(2).masked_fill(~present, -torch.inf)
    distance = distance.masked_fill(itself, -torch.inf)
    samples, picks = torch.arange(len(present), device=present.device), []
    for step in range(int(keep.max())):
        picks.append(nearest.argmax(1))
        reached = distance[samples, picks[-1]]
        nearest = reached.masked_fill(~present, -torch.inf) if step == 0 else torch.minimum(nearest, reached)
    return first_picks(picks, keep, present)
