"""CDPruner on embeddings: visual tokens stay that are like the prompt's text and unlike one another, as OpenVINO serves it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from baselines.shared.budget import dropped_before_decoder
from baselines.shared.greedy import most_diverse, volume_macs
from baselines.shared.repacked import RepackedWherePossible
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes


@dataclass
class CDPrunerEmbeddings(RepackedWherePossible):
    """CDPruner on the decoder's input embeddings, as OpenVINO GenAI serves it (src/cpp/src/visual_language/cdpruner; the rule
    is that of Zhang et al. 2025, arXiv 2506.10967, code github.com/Theia-4869/CDPruner), training-free.

    The relevance r of a visual token is its mean cosine to the embeddings of the prompt's text, brought to 0–1 over the
    prompt's visual tokens. The kernel of tokens i and j is w(r_i)·cos(i, j)·w(r_j), w(r) = exp(r·θ/(2(1-θ))), θ being
    `relevance_weight`; at θ = 1 w(r) = r, at θ = 0 it is 1. Tokens are chosen greedily for the largest determinant of their
    kernel. Survivors stand in prompt order, position ids repacked. Stage: before the decoder. Needs neither attention nor
    [CLS], nor CLIP's text tower, which the authors' own rule needs.

    Deviations:

    - OpenVINO leaves the marks of images out of the text. Here all that is no visual token is text.
    - OpenVINO chooses in the two halves of a large kernel apart, and rounds the number of tokens to an even one. Here there is
      one kernel, and the number is rounded to the nearest.
    - A token is never chosen twice. The authors' code may do so where more are asked for than the features have rank; here the
      rest then follows by relevance.
    - Position ids on three axes cannot be numbered anew. `for_reduction` keeps the ids of such models.

    Attributes:
        pruning_ratio: percent of the visual tokens to drop, at least 0 and below 100 (OpenVINO's default: 0, nothing).
        relevance_weight: θ, 0 to 1 (OpenVINO's default 0.5).
    """

    name: ClassVar[str] = "cdpruner-embeddings"
    pruning_ratio: float = 50.0
    relevance_weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.pruning_ratio < 100:
            raise FitPruneError(
                f"pruning_ratio is the percent of visual tokens to drop, 0 to below 100, not {self.pruning_ratio}."
            )
        if not 0 <= self.relevance_weight <= 1:
            raise FitPruneError(f"relevance_weight is a share, 0 to 1, not {self.relevance_weight}.")

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        keep = (tokens.total.double() * (1 - self.pruning_ratio / 100)).round().long()
        unit = functional.normalize(tokens.hidden.float(), dim=-1)
        text = (~tokens.row_mask() if tokens.valid is None else tokens.valid & ~tokens.row_mask()).float()
        about = (unit * text[..., None]).sum(1) / text.sum(1, keepdim=True).clamp(min=1)
        relevance = unit_range((tokens.rows(unit) @ about[..., None])[..., 0], tokens.present, 1e-6)
        if 0 < self.relevance_weight < 1:
            relevance = (relevance * self.relevance_weight / (2 - 2 * self.relevance_weight)).exp()
        elif not self.relevance_weight:
            relevance = torch.ones_like(relevance)
        count, width = tokens.count, unit.shape[-1]
        tokens.spend(((count + count**2) * width + volume_macs(count, keep)).sum())
        return most_diverse(tokens.features, relevance, tokens.present, keep)

    @classmethod
    def for_reduction(
        cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None, relevance_weight: float = 0.5
    ) -> "CDPrunerEmbeddings":
        """Solve `pruning_ratio` for a FLOPs budget, relevance, kernel and choice included."""

        def scoring(n: int, dropped: int) -> int:
            return int((n + n**2) * DecoderSizes.of(model_config).hidden_size + volume_macs(n, n - dropped))

        n, dropped = dropped_before_decoder("CDPruner", model_config, reduction, visual_tokens, scoring, fewest=1)
        return cls(100 * min(dropped, n - 1) / n, relevance_weight, positions=cls.own_positions(model_config))


def unit_range(values: torch.Tensor, present: torch.Tensor, least: float) -> torch.Tensor:
    """Values (batch, n) of the tokens `present` (batch, n), brought to 0–1 in each prompt; `least` is added to their range."""
    low = values.masked_fill(~present, torch.inf).amin(1, keepdim=True)
    high = values.masked_fill(~present, -torch.inf).amax(1, keepdim=True)
    return ((values - low) / (high - low + least)).masked_fill(~present, 0)
