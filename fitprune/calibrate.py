"""Fit a recipe for a FLOPs budget from the attention statistics of a small calibration batch."""

import bisect
import datetime
import importlib.metadata
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from fitprune.errors import BudgetError, FitPruneError, unknown_name
from fitprune.flops import check_reduction
from fitprune.prompts import Batch, Prompt, embed
from fitprune.recipe import Recipe
from fitprune.search import counts, measure, simulate
from fitprune.sizes import DecoderSizes
from fitprune.spool import Spool
from fitprune.statistics import BLOCK_ROWS

# The published bisection takes seven steps: alpha is a multiple of 1/128.
ALPHA_STEPS = 128

MODES = ("sequential", "one-pass")


def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    reduction: float = 0.6,
    *,
    mode: str = "sequential",
    progress: bool = True,
) -> Recipe:
    """Fit how many visual tokens to drop in each decoder layer so that `reduction` of their FLOPs is saved.

    FitPrune's procedure (arXiv 2409.10197; `search.drop_counts` is its rule at one alpha): the smallest alpha, of the
    multiples of 1/128, whose recipe reaches the budget is searched for. At one alpha each sample is pruned from
    layer to layer until the rest, run without further pruning, is within the budget; the recipe is the mean over samples.

    Deviations from the authors' code. (1) It returns the last alpha tried, whether or not that reached the budget; here
    it is the smallest that does. (2) It floors each layer's mean count, which makes its recipes miss their budget (60 %
    gives 59.7 %, 10 % gives 6.4 %); here the tokens LEFT after each layer are averaged, the whole curve is scaled by the one
    factor near 1 that just meets the budget, and rounded. So recipe.reduction is at least `reduction`, and above it by no
    more than one token's share: under one point from 100 visual tokens up.

    Args:
        model: a vision-language model with weights.
        batches: processor outputs (dicts of tensors), any batch size and padding; 128 samples or more are advisable.
        reduction: share of the visual tokens' decoder FLOPs to save, in (0, 1); scoring is not counted, as in the paper.
        mode: "sequential" runs the pruned model at every alpha tried, as published. "one-pass" runs the unpruned model
            once and follows the same rule on its attention (`search.simulate`), which leaves out that attention is
            renormalised over the survivors and that hidden states change.
        progress: show a progress bar on stderr.

    Raises:
        BudgetError: the budget cannot be reached; the message says what can.
        FitPruneError: no samples, a sample without visual tokens, a reduction outside (0, 1), an unknown mode.
    """
    check_reduction(reduction)
    return Calibration(model, batches, mode=mode, progress=progress).recipe(reduction)


class Calibration:
    """A calibration batch on a model; all budgets asked of it share one search.

    Args as in `fit`. The batches are read once, one at a time; what later passes need of them (embeddings, or in one-pass
    mode the importances) is kept in a temporary folder, so memory grows with the batch, not with the number of samples.
    """

    def __init__(self, model: nn.Module, batches: Iterable[Batch], *, mode: str = "sequential", progress: bool = True) -> None:
        if mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        self.model, self.mode, self.progress = model, mode, progress
        self.sizes = DecoderSizes.of(model.config)
        self._spool = Spool()
        self._counts: dict[tuple[int, int], np.ndarray] = {}
        self._masses: list[tuple[torch.Tensor, torch.Tensor]] = []
        visual, text = [], []
        for batch in tqdm(batches, desc="fit: statistics", unit="batch", disable=not progress, leave=False):
            prompt = embed(model, batch)
            cross, own, trace = measure(model, prompt)
            self._masses.append((cross.sum(2), own.sum(2)))
            if mode == "one-pass":
                self._spool.add({"cross": cross, "own": own, "present": trace.kept[0] >= 0})
            else:
                self._spool.add(prompt.tensors())
            visual.append(trace.visual_tokens)
            text.append(trace.text_tokens)
        if not visual:
            raise FitPruneError("no calibration samples were given.")
        self.samples_visual_tokens = torch.cat(visual).cpu().numpy()
        self.samples = len(self.samples_visual_tokens)
        # Where counts differ (tiled models) a recipe is written for the mean and scales to others by its ratios.
        self.visual_tokens = round(float(self.samples_visual_tokens.mean()))
        self.text_tokens = round(float(torch.cat(text).float().mean()))

    def drop_counts(self, step: int, batches: int | None = None) -> np.ndarray:
        """`search.drop_counts` at alpha = step / 128: int array (samples, layers); each batch is run once.

        With `batches`, of the first so many batches only.
        """
        wanted = range(len(self._spool) if batches is None else batches)
        if any((step, place) not in self._counts for place in wanted):
            alpha = step / ALPHA_STEPS
            batched = zip(wanted, self._spool, self._masses, strict=False)
            bar = tqdm(
                batched, total=len(wanted), desc=f"fit: alpha {alpha:.3f}", unit="batch", disable=not self.progress, leave=False
            )
            for place, tensors, masses in bar:
                if (step, place) in self._counts:
                    continue
                if self.mode == "one-pass":
                    dropped = simulate(**tensors, alpha=alpha)
                else:
                    dropped = counts(self.model, Prompt.of(tensors), alpha, *masses)
                self._counts[step, place] = dropped.numpy()
        return np.concatenate([self._counts[step, place] for place in wanted])

    def recipe(self, reduction: float, *, scoring: bool = False) -> Recipe:
        """The recipe for one budget; see `fit`.

        With `scoring`, what FitPrune spends on scoring at inference is part of the cost, so that the recipe saves
        `reduction` net of it.
        """
        check_reduction(reduction)
        cost = _Cost(self.sizes, self.text_tokens if scoring else None)
        dense = cost.recipe([0] * self.sizes.layers, self.visual_tokens)
        budget = (1 - reduction) * dense

        def cost_at(curve: np.ndarray, scale: float) -> tuple[float, list[int]]:
            drop = _scaled(curve, scale, self.visual_tokens)
            return cost.recipe(drop, self.visual_tokens), drop

        def reaches(step: int, batches: int | None = None) -> bool:
            return cost_at(self._mean_left(step, cost, reduction, batches), 1.0)[0] <= budget

        if not reaches(ALPHA_STEPS):
            most = 1 - cost_at(self._mean_left(ALPHA_STEPS, cost, reduction), 1.0)[0] / dense
            raise BudgetError(
                f"FitPrune cannot save {reduction:.1%} of this model's visual-token FLOPs; it reaches {most:.1%}, "
                "since the first layer's attention sees every token."
            )
        step = self._smallest_step(reaches)
        curve = self._mean_left(step, cost, reduction)
        # The smallest scale whose rounded recipe is within the budget; 1 is, by the choice of alpha.
        small, large = 0.0, 1.0
        for _ in range(40):
            scale = (small + large) / 2
            small, large = (small, scale) if cost_at(curve, scale)[0] <= budget else (scale, large)
        drop = cost_at(curve, large)[1]
        return Recipe(drop, self.visual_tokens, self.sizes, self._provenance(reduction, step, scoring))

    def _smallest_step(self, reaches: Callable[..., bool]) -> int:
        """The smallest step at which `reaches(step)` holds, given that it rises with the step and holds at the last.

        A bisection over the first eighth of the batches says where to look; the verdict is over all of them.
        """
        few = max(1, len(self._spool) // 8)
        guess = _first(0, ALPHA_STEPS, lambda step: reaches(step, few))
        low, high, stride = 0, ALPHA_STEPS, 1
        if reaches(guess):
            high = guess
            while high - stride > 0 and reaches(high - stride):
                high, stride = high - stride, 2 * stride
            low = max(high - stride, 0)
        else:
            low = guess
            while low + stride < ALPHA_STEPS and not reaches(low + stride):
                low, stride = low + stride, 2 * stride
            high = min(low + stride, ALPHA_STEPS)
        return _first(low, high, reaches)

    def _mean_left(self, step: int, cost: "_Cost", reduction: float, batches: int | None = None) -> np.ndarray:
        """Mean over samples of the share of visual tokens left after each layer, each sample stopped at its budget."""
        drops = self.drop_counts(step, batches)
        n = self.samples_visual_tokens[: len(drops)]
        left_after = n[:, None] - drops.cumsum(1)
        present = np.concatenate([n[:, None], left_after], 1)
        budget = (1 - reduction) * cost.dense(n)
        spent, stopped = np.zeros(len(n)), np.zeros(len(n), dtype=bool)
        final = np.empty_like(left_after)
        current = n.copy()
        layers = self.sizes.layers
        for layer in range(layers):
            rest = spent + (layers - layer) * cost.layer(current, current, scored=False)
            stopped |= rest <= budget
            after = np.where(stopped, current, present[:, layer + 1])
            spent += cost.layer(current, after, scored=after < current)
            final[:, layer] = current = after
        return (final / n[:, None]).mean(0)

    def _provenance(self, reduction: float, step: int, scoring: bool) -> dict[str, object]:
        return {
            "method": self.mode,
            "reduction_asked": reduction,
            "scoring_counted": scoring,
            "alpha": step / ALPHA_STEPS,
            "samples": self.samples,
            "text_tokens": self.text_tokens,
            "model_name": str(getattr(self.model.config, "_name_or_path", "") or type(self.model).__name__),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        }


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first number above `low` at which `holds` does, given that from there on it does, up to `high`."""
    return low + 1 + bisect.bisect_left(range(low + 1, high), True, key=holds)


def _scaled(curve: np.ndarray, scale: float, visual_tokens: int) -> list[int]:
    """Drop counts of the curve of shares left (layers,), its distance from 1 scaled, rounded to whole tokens."""
    left = np.rint(visual_tokens * (1 - scale * (1 - curve))).astype(int)
    return [int(count) for count in -np.diff(left, prepend=visual_tokens)]


class _Cost:
    """Multiply-accumulates of visual tokens in one layer; with `text_tokens`, FitPrune's scoring too."""

    def __init__(self, sizes: DecoderSizes, text_tokens: int | None) -> None:
        self.sizes, self.text_tokens = sizes, text_tokens

    def layer(self, entered: np.ndarray, kept: np.ndarray, scored: np.ndarray | bool) -> np.ndarray:
        """Cost of a layer that `entered` tokens enter and `kept` leave, elementwise."""
        s = self.sizes
        hidden, entered = s.hidden_size, np.asarray(entered, dtype=float)
        macs = entered * hidden * (s.q_size + 2 * s.kv_size) + 2 * entered**2 * s.q_size
        macs += np.asarray(kept) * (s.q_size * hidden + 3 * s.intermediate_size * hidden)
        if self.text_tokens is None:
            return macs
        return macs + np.where(scored, self._scoring(entered, self.text_tokens), 0)

    def dense(self, visual_tokens: np.ndarray) -> np.ndarray:
        """Cost of the whole decoder, nothing dropped."""
        return self.sizes.layers * self.layer(visual_tokens, visual_tokens, scored=False)

    def recipe(self, drop: list[int], visual_tokens: int) -> float:
        """Cost of the whole decoder under a recipe."""
        left = visual_tokens - np.cumsum(drop)
        before = np.concatenate([[visual_tokens], left[:-1]])
        return float(self.layer(before, left, np.asarray(drop) > 0).sum())

    def _scoring(self, entered: np.ndarray, text_tokens: int) -> np.ndarray:
        """What `statistics.head_max_columns` computes: in blocks of rows, visual and later ones, the products of queries and
        keys in every head, and two weighted sums over rows.

        A prompt's text is taken to stand after its image, which is where nearly all of it stands.
        """
        rows = np.rint(entered).astype(int) + text_tokens
        whole, part = rows // BLOCK_ROWS, rows % BLOCK_ROWS
        products = BLOCK_ROWS**2 * whole * (whole + 1) / 2 + part * rows
        return products * (self.sizes.q_size + 2)
