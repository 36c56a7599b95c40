"""CDPruner: visual tokens stay that have to do with the question and are unlike one another; and as OpenVINO serves it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from baselines.shared.budget import dropped_before_decoder
from baselines.shared.choosing.greedy import most_diverse, volume_macs
from baselines.shared.counts import check_counts, share
from baselines.shared.questions import SHORT, clip_macs, in_clip, require_clip, without
from baselines.shared.repacked import Repacked, RepackedWherePossible
from baselines.shared.tower_attention import dropped_after_tower
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes, tower_sizes


@dataclass
class CDPruner(Repacked):
    """CDPruner (Zhang et al. 2025, arXiv 2506.10967; code github.com/Theia-4869/CDPruner), training-free.

    The relevance r of a patch is its negated cosine to the question in CLIP's space, brought to 0–1 over the prompt. The kernel
    of patches i and j of a view is r_i·cos(i, j)·r_j, of projected features. Patches of each view are chosen greedily for the
    largest determinant of their kernel. Survivors stand in prompt order, position ids repacked. Stage: between projector and
    decoder. Needs CLIP's text tower, but neither attention nor [CLS].

    As in the authors' code, the cosine is negated: patches of CLIP that show what the text names are less like it. The
    instruction for the form of the answer is taken out of the question.

    Deviations:

    - In the authors' code, relevance is brought to 0–1 over the whole batch. Here it is per prompt.
    - The authors cut a question beyond CLIP's 77 tokens into pieces, of which all but the last lack an end token, so that the
      tower reads them at their first token. Here the question is cut, and keeps its end.
    - A token is never chosen twice. The authors' code may do so where more are asked for than the features have rank; here the
      rest then follows by relevance.
    - The authors give each view of a LLaVA-NeXT picture the same number of tokens, padding among them. Here each view keeps
      the same share of its patches in the prompt.
    - The authors drop all newlines. Here newlines stay; `newlines="pruned"` drops them.

    Attributes:
        visual_token_num: tokens that stay, of `visual_tokens` (128, 64 and 32 in the authors' tables).
        visual_tokens: the number that it refers to. Other numbers keep the same share, rounded view by view.
    """

    name: ClassVar[str] = "cdpruner"
    vision: ClassVar[bool] = True
    visual_token_num: int = 64
    visual_tokens: int = 576

    def __post_init__(self) -> None:
        check_counts("CDPruner", {"visual_token_num": self.visual_token_num}, self.visual_tokens)

    def check(self, model: nn.Module) -> None:
        super().check(model)
        require_clip(model, self)

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        vision, there = tokens.vision, tokens.vision.in_prompt
        patches, texts = in_clip(tokens, [without(question, SHORT) for question in tokens.question])
        unit, asked = functional.normalize(patches, dim=-1), functional.normalize(texts, dim=-1)[vision.sample]
        alike = vision.of_patches((unit @ asked[..., None])[..., 0])
        relevance = vision.by_view(unit_range(-alike, vision.patch >= 0, least=1e-30, above=1e-6))
        count = there.sum(1)
        keep = share(count, self.visual_token_num, self.visual_tokens)
        tokens.spend(unit.numel(), (count**2 * tokens.hidden.shape[-1] + volume_macs(count, keep)).sum())
        return vision.of_patches(most_diverse(vision.by_view(tokens.features), relevance, there, keep))

    @classmethod
    def for_reduction(cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None) -> "CDPruner":
        """Solve `visual_token_num` for a FLOPs budget, CLIP's text tower on a short question, kernel and choice included."""

        def scoring(n: int, dropped: int) -> int:
            kernel = n * tower_sizes(model_config).patches * DecoderSizes.of(model_config).hidden_size
            return int(clip_macs(model_config, n) + kernel + volume_macs(n, n - dropped))

        n, dropped = dropped_after_tower("CDPruner", model_config, reduction, visual_tokens, scoring)
        return cls(n - dropped, n)


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
    text_degree = 0
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
        relevance = unit_range((tokens.rows(unit) @ about[..., None])[..., 0], tokens.present, least=1e-6)
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


def unit_range(values: torch.Tensor, present: torch.Tensor, *, least: float, above: float = 0) -> torch.Tensor:
    """Values (batch, n) of the tokens `present` (batch, n), brought to 0–1 in each prompt.

    `above` is added to what they are above the lowest, `least` to their range, as authors do against division by 0.
    """
    low = values.masked_fill(~present, torch.inf).amin(1, keepdim=True)
    high = values.masked_fill(~present, -torch.inf).amax(1, keepdim=True)
    return ((values - low + above) / (high - low + least)).masked_fill(~present, 0)
