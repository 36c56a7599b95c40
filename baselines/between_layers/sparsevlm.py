"""SparseVLM and SparseVLM+: text tokens that concern the image rate its tokens, stage by stage."""

import bisect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from baselines.shared.budget import TEXT_TOKENS, nearest_choice
from baselines.shared.clustering import density_peaks, group_means
from baselines.shared.padded import descending, highest, indices_of, marked, rows_at, true_first
from baselines.shared.repacked import Repacked
from baselines.shared.rotary import embeddings_of, ones_under_rotation
from baselines.shared.stages import scaled_stages
from fitprune import BudgetError, FitPruneError, Selection
from fitprune.interface.tokens import Attention, VisualTokens
from fitprune.models.parts import model_parts
from fitprune.models.sizes import DecoderSizes
from fitprune.scoring.precision import in_float32

# Tokens and heads of the authors' model, which their numbers refer to.
OF_TOKENS, OF_HEADS = 576, 32
# Text tokens that rate, as budgets assume.
RATERS = 4


def raters(visual: torch.Tensor, present: torch.Tensor, text: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """The text tokens that rate.

    Each visual token has a softmax over the text tokens. A text token rates if its mean share in these is above the mean of
    all text tokens. Where none is above it (a single text token), all rate.

    Args:
        visual, text: input embeddings, (batch, n, H) and (batch, t, H).
        present, real: bool (batch, n) and (batch, t), False in their padding.

    Returns:
        bool (batch, t); all False in a sample without text or without visual tokens.
    """
    logits = (in_float32(visual) @ in_float32(text).transpose(1, 2)).float().masked_fill(~real[:, None], float("-inf"))
    share = logits.softmax(2).masked_fill(~present[..., None] | ~real[:, None], 0).sum(1) / present.sum(1).clamp(min=1)[:, None]
    above = (share > share.sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)) & real
    return torch.where(above.any(1, keepdim=True), above, real) & present.any(1, keepdim=True)


def recycle(
    score: torch.Tensor,
    present: torch.Tensor,
    hidden: torch.Tensor,
    keep: torch.Tensor,
    sizes: Sequence[tuple[int, int, int, int]] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One stage of SparseVLM: the best-rated tokens stay, and the best 30 % of the others are merged into clusters.

    At least one of the tokens present goes. Of d tokens that go, the m = int(0.3·d) + 1 of highest score form int(m/10) + 1
    clusters, each the mean of its members. Of equal scores, the earlier token counts as the higher.

    Args:
        score: (batch, n).
        present: bool (batch, n), False in padding, which stands on the right.
        hidden: (batch, n, H), float.
        keep: LongTensor (batch,): number of tokens that stay unmerged.
        sizes: per sample, `stage_sizes` where the host knows them; else they are read from the device.

    Returns:
        Indices, LongTensor (batch, m), of the tokens kept, ascending, then of the clusters' peaks, padded with -1; the hidden
        states of these, (batch, m, H); multiply-accumulates.
    """
    n, width = present.shape[1], hidden.shape[-1]
    ranking = torch.arange(n, device=score.device)
    order = descending(score, present)
    count = present.sum(1)
    keep = keep.minimum(count - 1).clamp(min=0)
    dropped = count - keep
    merged = ((dropped.double() * 0.3).long() + 1) * (dropped > 0)
    clusters = (merged // 10 + 1) * (dropped > 0)
    if sizes is None:
        sizes = torch.stack([keep, merged, clusters, keep + clusters], 1).tolist()
    most_kept, most_merged, most_clusters, longest = (max(column) for column in zip(*sizes, strict=True))
    kept = indices_of(highest(score, present, keep), most_kept)

    pool = order.gather(1, (keep[:, None] + ranking[:most_merged]).clamp(max=n - 1))
    real = ranking[: pool.shape[1]] < merged[:, None]
    x = rows_at(hidden, pool)
    peaks, group = density_peaks(x, real, clusters, most_clusters)
    centres = pool.gather(1, peaks.clamp(min=0)).masked_fill(peaks < 0, -1)
    means = group_means(x, group, peaks.shape[1])

    index = torch.cat([kept, centres], 1)
    going = torch.cat([rows_at(hidden, kept), means], 1)
    front = true_first(index >= 0)[:, :longest]
    macs = (merged * (merged + clusters)).sum() * width
    return index.gather(1, front), rows_at(going, front), macs


def stage_sizes(count: int, keep: int) -> tuple[int, int, int, int]:
    """Of `count` tokens of which `keep` are to stay: those that stay, those that are merged, clusters, and what goes on."""
    keep = max(min(keep, count - 1), 0)
    if count == keep:
        return keep, 0, 0, keep
    merged = int((count - keep) * 0.3) + 1
    return keep, merged, merged // 10 + 1, keep + merged // 10 + 1


def corrected_mean(weights: torch.Tensor, ones: torch.Tensor, counted: torch.Tensor, heads: int) -> torch.Tensor:
    """SparseVLM+'s score: attention divided by the effect of position alone, over the heads that look at the image.

    Args:
        weights: (batch, heads, r, n), attention of r text tokens to n visual tokens, 0 in padding.
        ones: (batch, r, n), products of rotated vectors of ones.
        counted: bool (batch, r), False in the padding of the rows.
        heads: number of heads that count, those whose corrected attention has the largest sum.

    Returns:
        (batch, n): the mean over these heads and rows.
    """
    corrected = (weights / ones[:, None]).masked_fill(~counted[:, None, :, None], 0)
    best = corrected.sum((2, 3)).argsort(dim=1, descending=True, stable=True)[:, :heads]
    samples = torch.arange(len(best), device=best.device)[:, None]
    return corrected[samples, best].mean(1).sum(1) / counted.sum(1).clamp(min=1)[:, None]


@dataclass
class SparseVLM(Repacked):
    """SparseVLM (Zhang et al. 2024, arXiv 2410.04417; code github.com/Gumpest/SparseVLMs, version 1.5), training-free.

    Raters are text tokens after the image. A text token is a rater if its share in softmax(V·Tᵀ) over the text, averaged over
    the visual tokens, is above the mean; V and T are the decoder's input embeddings. After each layer of `pruning_loc`, a
    fixed number of visual tokens stays: those with the highest attention of the raters in that layer, averaged over heads and
    raters. Of the d tokens that go, the best-rated int(0.3·d) + 1 are merged into clusters by density peaks. The clusters
    follow the kept tokens, and compete again at the next stage. Position ids repacked. Stage: between decoder layers. Needs
    the raters' attention rows, computed beside SDPA, but no [CLS].

    Deviations:

    - The authors break ties of density by random noise of 1e-6. Here the better-rated token counts as the denser.
    - Where no text token is above the mean (a single text token), all rate. Without text after the image, where the authors'
      code fails, the last token rates.
    - All images of a prompt are one pool, text counts after the last of them, and merged tokens follow the last kept one.
    - A prompt with another number of visual tokens than 576 keeps the same share of them.
    - The authors give four lists of counts. Other values of `retained_tokens` interpolate between the lists linearly.

    Attributes:
        retained_tokens: the authors' name of a list of counts, not a count (see `LISTS`); 0 to 576.
        pruning_loc: layers after which tokens are dropped, ascending (authors': 2, 6, 15 of 32).
    """

    name: ClassVar[str] = "sparsevlm"
    text_degree = 2
    # Visual tokens, of 576, that stay after each stage.
    LISTS: ClassVar[dict[int, tuple[int, int, int]]] = {
        64: (66, 30, 17),
        96: (238, 48, 26),
        128: (303, 110, 36),
        192: (300, 200, 110),
    }
    recycles: ClassVar[bool] = True

    retained_tokens: float = 192
    pruning_loc: tuple[int, ...] = (2, 6, 15)

    def __post_init__(self) -> None:
        self.pruning_loc = tuple(self.pruning_loc)
        first, second, third = self.pruning_loc if len(self.pruning_loc) == 3 else (0, 0, 0)
        if not 0 <= first < second < third:
            raise FitPruneError(f"{type(self).__name__} prunes after three layers, ascending, not {list(self.pruning_loc)}.")
        if not 0 <= self.retained_tokens <= OF_TOKENS:
            raise FitPruneError(f"retained_tokens is a number from 0 to {OF_TOKENS}, not {self.retained_tokens}.")

    def check(self, model: nn.Module) -> None:
        super().check(model)
        layers = len(model_parts(model).layers)
        if self.pruning_loc[-1] + 1 >= layers:
            raise FitPruneError(
                f"{type(self).__name__} after layers {list(self.pruning_loc)} does not fit a decoder of {layers} layers."
            )

    def observed_layers(self, layers: int) -> Collection[int]:
        return self.pruning_loc

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | Selection | None:
        if layer == 0:
            tokens.memory["raters"] = self._raters(tokens)
        if layer - 1 not in self.pruning_loc:
            return None
        counts = self.sparse_token_list(self.retained_tokens)
        share = counts[self.pruning_loc.index(layer - 1)] / OF_TOKENS
        keep = (tokens.total.double() * share).round().long()
        at = tokens.layout
        sizes = [stage_sizes(count, round(total * share)) for count, total in zip(at.counts, at.totals, strict=True)]
        return self._stage(tokens, tokens.columns(tokens.carried["score"]), keep, sizes)

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> None:
        tokens.carried["score"] = tokens.spread(self._score(tokens, attention, self._rater_rows(tokens)))

    def _score(self, tokens: VisualTokens, attention: Attention, rows: torch.Tensor) -> torch.Tensor:
        """The raters' rating of the visual tokens, (batch, n); `rows`, bool (batch, T), marks the raters."""
        return attention.row_mean(tokens, rows)

    def _stage(
        self, tokens: VisualTokens, score: torch.Tensor, keep: torch.Tensor, sizes: Sequence[tuple[int, int, int, int]]
    ) -> torch.Tensor | Selection | None:
        """The tokens that go on after a stage, by `score` (batch, n); `keep` (batch,) of them stay unmerged, see `recycle`."""
        features = tokens.features
        index, hidden, macs = recycle(score, tokens.present, features.float(), keep, sizes)
        tokens.spend(macs)
        return Selection(index, hidden.to(features.dtype), counts=tuple(size[-1] for size in sizes))

    @staticmethod
    def _raters(tokens: VisualTokens) -> torch.Tensor:
        """Bool (batch, t): which of each sample's text tokens after its image rate; t is the largest number in the batch."""
        rows = indices_of(tokens.text_after)
        real = rows >= 0
        tokens.spend((real.sum(1) * tokens.count).sum() * tokens.hidden.shape[-1])
        return raters(tokens.features, tokens.present, rows_at(tokens.hidden, rows), real)

    @staticmethod
    def _rater_rows(tokens: VisualTokens) -> torch.Tensor:
        """Bool (batch, T): the rows of the raters; the last row of a sample without raters."""
        chosen: torch.Tensor = tokens.memory["raters"]
        text = tokens.text_after
        rows = torch.zeros_like(text)
        if chosen.shape[1]:
            rows = chosen.gather(1, (text.cumsum(1) - 1).clamp(min=0)) & text
        last = marked(tokens.last_row()[:, None], rows.shape[1])
        return torch.where(rows.any(1, keepdim=True), rows, last)

    @classmethod
    def sparse_token_list(cls, retained_tokens: float) -> tuple[float, float, float]:
        """Visual tokens, of 576, that stay after each stage: the authors' list of that name, or an interpolated one."""
        knots = {0: (0, 0, 0), **cls.LISTS, OF_TOKENS: (OF_TOKENS,) * 3}
        names = sorted(knots)
        upper = max(1, bisect.bisect_left(names, retained_tokens))
        low, high = names[upper - 1], names[upper]
        part = (retained_tokens - low) / (high - low)
        first, second, third = (a + part * (b - a) for a, b in zip(knots[low], knots[high], strict=True))
        return first, second, third

    def params(self) -> dict[str, Any]:
        return {**super().params(), "sparse_token_list": list(self.sparse_token_list(self.retained_tokens))}

    @classmethod
    def for_reduction(
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        pruning_loc: tuple[int, ...] | None = None,
    ) -> "SparseVLM":
        """Solve `retained_tokens` for a FLOPs budget, rating and merging included.

        By default, the stages are the authors', scaled to the decoder's depth. No two stages fall on one layer.
        """
        sizes = DecoderSizes.of(model_config)
        if sizes.layers < 4:
            raise BudgetError(f"{cls.__name__} prunes after three layers; a decoder of {sizes.layers} has no room for them.")
        # The authors' layers 2, 6 and 15, after which tokens go, are the third, seventh and sixteenth.
        scaled = tuple(stage - 1 for stage in scaled_stages((3, 7, 16), sizes.layers, apart=1))
        stages = cls(pruning_loc=tuple(pruning_loc or scaled)).pruning_loc
        ends = (*stages[1:], sizes.layers - 1)

        def entering(n: int, retained: int) -> list[int]:
            present = [n] * (stages[0] + 1)
            for stage, end, (before, keep) in zip(stages, ends, cls._counts(n, retained), strict=True):
                present += [keep + cls._merged(before - keep)[1]] * (end - stage)
            return present

        def scoring(n: int, retained: int) -> int:
            spent = n * TEXT_TOKENS * sizes.hidden_size
            for before, keep in cls._counts(n, retained):
                merged, clusters = cls._merged(before - keep)
                spent += RATERS * (before + TEXT_TOKENS) * sizes.q_size + merged * (merged + clusters) * sizes.hidden_size
            return spent

        name = cls.__name__
        _, retained = nearest_choice(name, model_config, reduction, visual_tokens, range(OF_TOKENS), entering, scoring)
        return cls(retained_tokens=retained, pruning_loc=stages)

    @classmethod
    def _counts(cls, n: int, retained_tokens: float) -> list[tuple[int, int]]:
        """For each stage: the number of visual tokens there, and the number that stay unmerged, for a prompt of n tokens."""
        counts, present = [], n
        for count in cls.sparse_token_list(retained_tokens):
            keep = max(0, min(round(n * (count / OF_TOKENS)), present - 1))
            counts.append((present, keep))
            present = keep + cls._merged(present - keep)[1]
        return counts

    @classmethod
    def _merged(cls, dropped: int) -> tuple[int, int]:
        """The number of merged tokens, and of their clusters, where `dropped` tokens do not stay."""
        if not cls.recycles or dropped == 0:
            return 0, 0
        merged = int(dropped * 0.3) + 1
        return merged, merged // 10 + 1


@dataclass
class SparseVLMPlus(SparseVLM):
    """SparseVLM+, version 2.0 of the authors' code (github.com/Gumpest/SparseVLMs, December 2025), training-free.

    SparseVLM with other counts and three changes:

    - Nothing is merged, and position ids are kept.
    - The raters' attention is corrected for position: it is divided by the product of two vectors of ones under the rotary
      embeddings of its query and key.
    - Of 32 heads, only 14 count: those whose corrected attention of raters to visual tokens has the largest sum.

    Stage: between decoder layers. Needs the raters' attention rows, computed beside SDPA, but no [CLS].

    Deviations: those of SparseVLM. A model with another number of heads counts the same share of them. The product of ones is
    negative at some distances; attention is divided by it nevertheless, as by the authors.

    Attributes:
        heads: number of heads that count, of 32 (authors': 14).
    """

    name: ClassVar[str] = "sparsevlm-plus"
    LISTS: ClassVar[dict[int, tuple[int, int, int]]] = {
        64: (66, 34, 20),
        96: (246, 54, 28),
        128: (238, 108, 60),
        192: (300, 200, 118),
    }
    recycles: ClassVar[bool] = False

    positions: str = field(default="kept", kw_only=True)
    heads: int = field(default=14, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.heads <= OF_HEADS:
            raise FitPruneError(f"heads is a number of heads of {OF_HEADS}, at least 1, not {self.heads}.")

    def _score(self, tokens: VisualTokens, attention: Attention, rows: torch.Tensor) -> torch.Tensor:
        weights, rater = attention.row_columns(tokens, rows)
        ones = ones_under_rotation(*embeddings_of(tokens))
        products = rows_at(ones, rater) @ tokens.rows(ones).transpose(1, 2) / ones.shape[-1] ** 0.5
        counted = rater >= 0
        tokens.spend((counted.sum(1) * tokens.count).sum() * ones.shape[-1])
        products = products.masked_fill(~(counted[:, :, None] & tokens.present[:, None]), 1)
        heads = max(1, round(self.heads * weights.shape[1] / OF_HEADS))
        return corrected_mean(weights, products, counted, heads)

    def _stage(
        self, tokens: VisualTokens, score: torch.Tensor, keep: torch.Tensor, sizes: Sequence[tuple[int, int, int, int]]
    ) -> torch.Tensor:
        return tokens.keep_highest(score, keep.minimum(tokens.count - 1))
