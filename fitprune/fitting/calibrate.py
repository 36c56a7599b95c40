"""`fit`: a recipe for a FLOPs budget from the attention statistics of a small calibration set; `Calibration`: for several."""

import datetime
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from fitprune.errors import BudgetError, FitPruneError, Interrupted, unknown_name
from fitprune.fitting import MODES
from fitprune.fitting.alpha_search import ALPHA_STEPS, Runs, smallest_step
from fitprune.fitting.batches import CalibrationBatches
from fitprune.fitting.cost import Cost
from fitprune.fitting.curve import mean_curve, scaled, smallest_scale
from fitprune.fitting.identity import PACKAGE
from fitprune.fitting.tensor_store import TensorStore, digest
from fitprune.flops import check_reduction
from fitprune.models.execution import execution_device, floating_type
from fitprune.models.parts import BOTH_WAYS, model_parts
from fitprune.models.sizes import DecoderSizes
from fitprune.pruner import Pruner
from fitprune.recipes.recipe import Recipe
from fitprune.scoring.column_sums import blocks_for, in_one_block
from fitprune.scoring.macs import Blocks
from fitprune.search.prompts import Batch


def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    reduction: float = 0.6,
    *,
    mode: str = "sequential",
    progress: bool = True,
    keep: str | os.PathLike[str] | None = None,
) -> Recipe:
    """Fit how many visual tokens to drop in each decoder layer so that `reduction` of their FLOPs is saved.

    FitPrune's procedure (arXiv 2409.10197; `search.drop_counts` is its rule at one alpha): the smallest alpha, of the
    multiples of 1/128, whose recipe reaches the budget is searched for. At one alpha the samples are pruned from layer to
    layer until the rest, run without further pruning, is within the budget in the mean; the recipe is their mean.

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
            once and follows the same rule on its attention (`search.rule.simulate`), which leaves out that attention is
            renormalised over the survivors and that hidden states change.
        progress: show a progress bar on stderr.
        keep: a folder for the statistics; see `Calibration`.

    Raises:
        BudgetError: the budget cannot be reached; the message says what can.
        FitPruneError: no samples, a sample without visual tokens, a reduction outside (0, 1), an unknown mode.
        Interrupted: a KeyboardInterrupt that says how to go on.
    """
    check_reduction(reduction)
    return Calibration(model, batches, mode=mode, progress=progress, keep=keep).recipe(reduction)


class Calibration:
    """Calibration batches on a model; all budgets asked of it share the runs of the pruned model.

    The batches are read once, one at a time. Later passes need their embeddings and importances, which go to disk: memory
    grows with the batch, not with the number of samples. 655 samples of a 7B model take 4 GB on disk.

    Args:
        model: as in `fit`, and so are `batches`, `mode` and `progress`.
        origin: entries for the recipe's provenance: where the model and the data come from.
        after: a pruner that works before FitPrune (see `Composed`): the recipe is fitted on what it leaves of the prompts
            before the decoder. What it does between the decoder's layers is not seen.
        keep: a folder for the statistics, which then stay: the same call with the same folder goes on where an interrupted
            one ended. By default they lie in a temporary folder, which outlives the process only if it is interrupted.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        *,
        mode: str = "sequential",
        progress: bool = True,
        origin: Mapping[str, Any] | None = None,
        keep: str | os.PathLike[str] | None = None,
        after: Pruner | None = None,
    ) -> None:
        if mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        self.model, self.mode, self.progress = model, mode, progress
        self.origin = dict(origin or {})
        self.sizes = DecoderSizes.of(model.config)
        self._batches = CalibrationBatches(model, TensorStore(keep), mode == "sequential", after)
        with self._interruptible():
            for batch in tqdm(batches, desc="fit: statistics", unit="batch", disable=not progress, leave=False):
                self._batches.add(batch)
        if not self._batches.samples:
            raise FitPruneError("no calibration samples were given.")
        self._runs = Runs(self._batches.visual_tokens, self.sizes.layers, self._batches.run, self._batches.simulate)
        self.samples_visual_tokens = np.concatenate(self._batches.visual_tokens)
        self.samples = len(self.samples_visual_tokens)
        # Where counts differ (tiled models) a recipe is written for the mean and scales to others by its ratios.
        self.visual_tokens = round(float(self.samples_visual_tokens.mean()))
        self.text_tokens = round(float(torch.cat(self._batches.text_tokens).mean()))
        self.digest = digest(*self._batches.masses)

    def drop_counts(self, step: int) -> np.ndarray:
        """`search.drop_counts` at alpha = step / 128: int array (samples, layers); each batch is run once."""
        with self._interruptible():
            return np.concatenate([self._runs.dropped(step, batch) for batch in self._runs.batches])

    def recipe(self, reduction: float, *, scoring: bool = False) -> Recipe:
        """The recipe for one budget; see `fit`.

        With `scoring`, what FitPrune spends on scoring at inference is part of the cost, so that the recipe saves
        `reduction` net of it.
        """
        check_reduction(reduction)
        cost = Cost(self.sizes, self.text_tokens if scoring else None, self._blocks())
        dense = cost.recipe([0] * self.sizes.layers, self.visual_tokens)
        tokens = self.samples_visual_tokens

        def macs(curve: np.ndarray, scale: float) -> float:
            return cost.recipe(scaled(curve, scale, self.visual_tokens), self.visual_tokens)

        budget = (1 - reduction) * dense
        # Alpha 1 drops everything in the first layer; no model need be run to see what that saves.
        least = macs(np.zeros(self.sizes.layers), 1.0)
        if least > budget:
            raise BudgetError(
                f"FitPrune cannot save {reduction:.1%} of this model's visual-token FLOPs; it reaches {1 - least / dense:.1%}, "
                "since the first layer's attention sees every token."
            )
        with self._interruptible(), self._bar(reduction):
            step = smallest_step(self._runs, lambda left: cost.spent(tokens[: len(left)], left, reduction))
            left = self._runs.left(step)
        curve = mean_curve(tokens, left, cost.stop(tokens, left, reduction))
        # The scale would be 1, by the choice of alpha, but for the rounding to whole tokens.
        scale = smallest_scale(lambda scale: macs(curve, scale) <= budget)
        reached = 1 - macs(curve, scale) / dense
        drop = scaled(curve, scale, self.visual_tokens)
        return Recipe(drop, self.visual_tokens, self.sizes, self._provenance(reduction, reached, step, scoring))

    def _blocks(self) -> Callable[[int], Blocks]:
        """How scoring walks over the attention map on this model's device."""
        parts = model_parts(self.model)
        if parts.parent.config.model_type in BOTH_WAYS:
            return in_one_block
        head, dtype = self.sizes.q_size // parts.text_config.num_attention_heads, floating_type(parts.decoder)
        return blocks_for(torch.empty(1, 1, 1, head, dtype=dtype, device=execution_device(parts.decoder)))

    @contextmanager
    def _bar(self, reduction: float) -> Iterator[None]:
        """Progress of one budget's search, in batches; the total is what a search takes as a rule."""
        batches = len(self._runs.batches)
        expected = batches + (batches + 3) // 4
        with tqdm(total=expected, desc=f"fit: {reduction:.0%}", unit="batch", disable=not self.progress, leave=False) as bar:

            def advance() -> None:
                bar.total = max(bar.total or 0, bar.n + 1)
                bar.update()

            self._runs.on_run = advance
            try:
                yield
            finally:
                self._runs.on_run = None

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        try:
            yield
        except Interrupted:
            raise
        except KeyboardInterrupt:
            raise Interrupted(self._batches.samples, self._batches.store.keep()) from None

    def _provenance(self, reduction: float, reached: float, step: int, scoring: bool) -> dict[str, Any]:
        config = self.model.config
        return {
            "model": str(getattr(config, "_name_or_path", "") or type(self.model).__name__),
            **self.origin,
            "data": {
                **self.origin.get("data", {}),
                "samples": self.samples,
                "visual_tokens": self.visual_tokens,
                "text_tokens": self.text_tokens,
            },
            "budget": {"asked": reduction, "reached": round(reached, 6), "scoring_counted": scoring},
            "alpha": step / ALPHA_STEPS,
            "mode": self.mode,
            "statistics": self.digest,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": {name: importlib.metadata.version(name) for name in (PACKAGE, "torch", "transformers")},
        }
