"""DART on embeddings: pivots and what duplicates them least, chosen before the decoder, as TensorRT Edge-LLM serves it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import normalize

from baselines.shared.budget import TEXT_TOKENS, dropped_before_decoder
from baselines.shared.choosing.duplicates import equal_shares, least_duplicates
from baselines.shared.padded import highest_indices, marked, rows_at
from fitprune import FitPruneError, Pruner
from fitprune.interface.tokens import VisualTokens
from fitprune.models.sizes import DecoderSizes


@dataclass
class DARTEmbeddings(Pruner):
    """DART on the decoder's input embeddings, NVIDIA TensorRT Edge-LLM's `--visualPrune` (runtime/preprocess/dartPruner.cpp;
    the rule is that of Wen et al. 2025, arXiv 2502.11494, see `DART`), training-free.

    Of n visual tokens, ⌈n·(1 - reduction_ratio)⌉ stay, but at least one. Pivots are the 4 visual tokens and the 4 text tokens
    of the whole prompt whose embeddings have the largest L1 norm. Visual pivots stay. Each pivot in turn, visual ones first and
    each kind by falling norm, keeps its share of the tokens that are left: those of lowest cosine to it. The first pivots take
    one token more where the shares do not come out even. Survivors stand in prompt order and keep their position ids. Stage:
    before the decoder. Needs neither attention nor [CLS].

    Deviations:

    - Edge-LLM prunes every run of visual tokens by itself, with the text pivots shared. Here all visual tokens of a prompt are
      one pool.
    - Edge-LLM leaves a prompt of fewer than 16 visual tokens as it is. Here it is pruned like all others.
    - Computed in float32; Edge-LLM's embeddings are float16.

    Attributes:
        reduction_ratio: share of the visual tokens to drop, in (0, 1) (Edge-LLM's default 0.25).
        pivot_image_token, pivot_text_token: numbers of pivots (4 and 4).
    """

    name: ClassVar[str] = "dart-embeddings"
    reduction_ratio: float = 0.25
    pivot_image_token: int = 4
    pivot_text_token: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.reduction_ratio < 1:
            raise FitPruneError(
                f"reduction_ratio is the share of visual tokens to drop, in (0, 1), not {self.reduction_ratio}."
            )
        if min(self.pivot_image_token, self.pivot_text_token) < 0 or self.pivot_image_token + self.pivot_text_token < 1:
            raise FitPruneError(
                f"DART needs one pivot at least, not {self.pivot_image_token} visual and {self.pivot_text_token} text pivots."
            )
        self.text_degree = 0 if self.pivot_text_token <= TEXT_TOKENS else None  # a short text has fewer

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        embeds = tokens.hidden.float()
        norm = embeds.abs().sum(-1)
        real = torch.ones_like(norm, dtype=torch.bool) if tokens.valid is None else tokens.valid
        # 1e-9: the product may come out just above a whole number.
        target = (tokens.total.double() * (1 - self.reduction_ratio) - 1e-9).ceil().long().clamp(min=1)[:, None]
        images = highest_indices(tokens.columns(norm), tokens.present, self.pivot_image_token)
        images = images.masked_fill(torch.arange(images.shape[1], device=images.device) >= target, -1)
        texts = highest_indices(norm, real & ~tokens.row_mask(), self.pivot_text_token)
        rows = torch.where(images >= 0, tokens.position.gather(1, images.clamp(min=0)), -1)
        pivots = torch.cat([rows, texts], 1)
        unit = normalize(embeds, dim=-1)
        similarity = rows_at(unit, pivots) @ tokens.rows(unit).transpose(1, 2)
        tokens.spend(((pivots >= 0).sum(1) * tokens.count).sum() * unit.shape[-1])
        chosen = marked(images, tokens.present.shape[1])
        left = target - chosen.sum(1, keepdim=True)
        shares = equal_shares(left, pivots >= 0, remainder=True)
        return chosen | least_duplicates(similarity, tokens.present & ~chosen, shares)

    @classmethod
    def for_reduction(
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        pivot_image_token: int = 4,
        pivot_text_token: int = 4,
    ) -> "DARTEmbeddings":
        """Solve `reduction_ratio` for a FLOPs budget, similarities included."""

        def scoring(n: int, dropped: int) -> int:
            return (pivot_image_token + pivot_text_token) * n * DecoderSizes.of(model_config).hidden_size

        n, dropped = dropped_before_decoder("DART on embeddings", model_config, reduction, visual_tokens, scoring, fewest=1)
        return cls(min(dropped, n - 1) / n, pivot_image_token, pivot_text_token)
