"""Fit a recipe for a FLOPs budget from the attention statistics of a small calibration batch."""

import bisect
import datetime
import functools
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from fitprune.errors import BudgetError, FitPruneError, Interrupted, unknown_name
from fitprune.fitting.cost import Cost
from fitprune.fitting.prompts import Batch, Prompt, embed
from fitprune.fitting.spool import Spool, digest
from fitprune.flops import check_reduction
from fitprune.models.parts import model_parts
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes.recipe import Recipe
from fitprune.scoring.column_sums import kernels_for
from fitprune.search import counts, measure, simulate

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
            once and follows the same rule on its attention (`search.simulate`), which leaves out that attention is
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
    """A calibration batch on a model; all budgets asked of it share one search.

    The batches are read once, one at a time; what later passes need of them (embeddings and importances) goes to disk, so
    memory grows with the batch, not with the number of samples. 655 samples of a 7B model take 4 GB there.

    Args:
        model, batches, mode, progress: as in `fit`.
        origin: entries for the recipe's provenance: where the model and the data come from.
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
    ) -> None:
        if mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        self.model, self.mode, self.progress = model, mode, progress
        self.origin = dict(origin or {})
        self.sizes = DecoderSizes.of(model.config)
        self._spool = Spool(keep)
        self._names: list[str] = []
        self._counts: dict[tuple[int, int], np.ndarray] = {}
        self._masses: list[dict[str, torch.Tensor]] = []
        self._visual: list[np.ndarray] = []
        text = []
        identity = _identity(model)
        with self._interruptible():
            for batch in tqdm(batches, desc="fit: statistics", unit="batch", disable=not progress, leave=False):
                seen = self._statistics(batch, identity)
                cross, own = seen["cross"].float(), seen["own"].float()
                self._masses.append({"cross": cross.sum(2), "own": own.sum(2)})
                self._visual.append(seen["present"].sum(1).numpy())
                text.append(seen["text"].float())
        if not text:
            raise FitPruneError("no calibration samples were given.")
        self.samples_visual_tokens = np.concatenate(self._visual)
        self.samples = len(self.samples_visual_tokens)
        # Where counts differ (tiled models) a recipe is written for the mean and scales to others by its ratios.
        self.visual_tokens = round(float(self.samples_visual_tokens.mean()))
        self.text_tokens = round(float(torch.cat(text).mean()))
        self.digest = digest(*self._masses)

    def drop_counts(self, step: int) -> np.ndarray:
        """`search.drop_counts` at alpha = step / 128: int array (samples, layers); each batch is run once."""
        with self._interruptible():
            return np.concatenate([self._batch_counts(step, place) for place in range(len(self._names))])

    def recipe(self, reduction: float, *, scoring: bool = False) -> Recipe:
        """The recipe for one budget; see `fit`.

        With `scoring`, what FitPrune spends on scoring at inference is part of the cost, so that the recipe saves
        `reduction` net of it.
        """
        check_reduction(reduction)
        cost = Cost(self.sizes, self.text_tokens if scoring else None, self._kernels())
        dense = cost.recipe([0] * self.sizes.layers, self.visual_tokens)
        budget = (1 - reduction) * dense

        def saves(curve: np.ndarray, scale: float) -> tuple[bool, list[int], float]:
            drop = _scaled(curve, scale, self.visual_tokens)
            macs = cost.recipe(drop, self.visual_tokens)
            return macs <= budget, drop, 1 - macs / dense

        def spent(left: np.ndarray) -> float:
            return cost.spent(self.samples_visual_tokens[: len(left)], left, reduction)

        # alpha 1 drops everything in the first layer; no model need be run to see what that saves.
        reached, _, most = saves(np.zeros(self.sizes.layers), 1.0)
        if not reached:
            raise BudgetError(
                f"FitPrune cannot save {reduction:.1%} of this model's visual-token FLOPs; it reaches {most:.1%}, "
                "since the first layer's attention sees every token."
            )
        with self._interruptible(), self._bar(reduction) as bar:
            step = self._smallest_step(spent, bar)
            left = self._left(step, bar)
        n = self.samples_visual_tokens
        curve = (_frozen(n, left, cost.stop(n, left, reduction)) / n[:, None]).mean(0)
        # The smallest scale whose rounded recipe is within the budget: 1, by the choice of alpha, but for the rounding.
        small, large = 0.0, 2.0
        for _ in range(40):
            scale = (small + large) / 2
            small, large = (small, scale) if saves(curve, scale)[0] else (scale, large)
        _, drop, saved = saves(curve, large)
        return Recipe(drop, self.visual_tokens, self.sizes, self._provenance(reduction, saved, step, scoring))

    def _kernels(self) -> bool:
        """Whether scoring on this model's device is the Triton kernels' work."""
        parts = model_parts(self.model)
        weight = next(parts.decoder.parameters())
        head = self.sizes.q_size // parts.text_config.num_attention_heads
        return kernels_for(weight.new_empty(1, 1, 1, head)) is not None

    def _statistics(self, batch: Batch, identity: str) -> dict[str, torch.Tensor]:
        """One batch through the unpruned model, or what a kept folder holds of it."""
        name = digest(identity, batch)
        seen = self._spool.get(name)
        if seen is None or (self.mode == "sequential" and not self._spool.has(f"{name}-prompt")):
            prompt = embed(self.model, batch)
            cross, own, trace = measure(self.model, prompt)
            present = torch.arange(cross.shape[2]) < trace.visual_tokens.cpu()[:, None]
            seen = {"cross": cross.cpu(), "own": own.cpu(), "present": present, "text": trace.text_tokens.cpu()}
            if self.mode == "sequential":
                self._spool.put(f"{name}-prompt", prompt.tensors())
            self._spool.put(name, seen)
        self._names.append(name)
        return seen

    def _batch_counts(self, step: int, place: int) -> np.ndarray:
        """The rule at alpha = step / 128 on one batch, run once: int array (samples, layers)."""
        if (step, place) not in self._counts:
            batch, alpha = self._names[place], step / ALPHA_STEPS
            if self.mode == "one-pass":
                self._counts[step, place] = self._simulated(step, place)
            else:
                kept = f"{batch}-alpha{step}"
                found = self._spool.get(kept)
                if found is None:
                    prompt = Prompt.of(self._load(f"{batch}-prompt"))
                    device = next(self.model.parameters()).device
                    cross, own = (self._masses[place][name].to(device) for name in ("cross", "own"))
                    found = {"dropped": counts(self.model, prompt, alpha, cross, own)}
                    self._spool.put(kept, found)
                self._counts[step, place] = found["dropped"].numpy()
        return self._counts[step, place]

    def _simulated(self, step: int, place: int) -> np.ndarray:
        """The rule on the unpruned model's importances of one batch: int array (samples, layers)."""
        seen = self._load(self._names[place])
        return simulate(seen["cross"], seen["own"], seen["present"], step / ALPHA_STEPS).numpy()

    def _load(self, name: str) -> dict[str, torch.Tensor]:
        found = self._spool.get(name)
        if found is None:
            raise FitPruneError(f"statistics have gone from {self._spool.folder}; fit again.")
        return found

    def _smallest_step(self, spent: Callable[[np.ndarray], float], bar: tqdm) -> int:
        """The smallest step whose tokens left (samples, layers) make `spent`, the cost as a share of the budget, at most 1.

        Where to look is foretold; the verdict, that this step is within the budget and the one before is not, is over all
        batches.
        """
        few = range(max(1, len(self._names) // 16))
        forecast = self._forecast(spent, few, bar)
        guess = _within(forecast)
        bias = spent(self._left(guess, bar)) / forecast(guess)
        guess = _within(lambda step: bias * forecast(step))
        return _near(guess, lambda step: self._reaches(step, spent, bar))

    def _forecast(self, spent: Callable[[np.ndarray], float], few: range, bar: tqdm) -> Callable[[int], float]:
        """What these batches would spend at a step: simulated, and corrected by runs at the steps that look right."""
        ratios: dict[int, float] = {}

        @functools.cache
        def simulated(step: int) -> float:
            return spent(np.concatenate([self._after(place, self._simulated(step, place)) for place in few]))

        def forecast(step: int) -> float:
            known = sorted(ratios)
            ratio = float(np.interp(step, known, [ratios[other] for other in known])) if known else 1.0
            return simulated(step) * ratio

        def learn(step: int) -> None:
            for place in few:
                self._run(step, place, bar)
            ratios[step] = spent(self._bound(step, few, fewest=True)) / simulated(step)

        # What the search for another budget has run costs nothing.
        for step in {step for step, _ in self._counts}:
            if all((step, place) in self._counts for place in few):
                learn(step)
        while (guess := _within(forecast)) not in ratios:
            learn(guess)
        return forecast

    def _reaches(self, step: int, spent: Callable[[np.ndarray], float], bar: tqdm) -> bool:
        """Whether alpha = step / 128 is within the budget over all batches.

        No more of them are run than it takes: a larger alpha leaves no more tokens, so what was run at other steps bounds
        what the others would leave.
        """
        everything = range(len(self._names))
        for place in everything:
            if spent(self._bound(step, everything, fewest=True)) > 1:
                return False
            if spent(self._bound(step, everything, fewest=False)) <= 1:
                return True
            self._run(step, place, bar)
        return spent(self._bound(step, everything, fewest=True)) <= 1

    def _bound(self, step: int, places: range, fewest: bool) -> np.ndarray:
        """The fewest, or the most, tokens that may be left: (samples, layers)."""
        left = []
        for place in places:
            known = [other for other, where in self._counts if where == place]
            near = [other for other in known if (other >= step if fewest else other <= step)]
            if near:
                counted = self._counts[min(near) if fewest else max(near), place]
                left.append(self._after(place, counted))
            else:
                # alpha 1 drops everything in the first layer, alpha 0 nothing.
                n = self._visual[place]
                left.append(np.repeat(np.zeros_like(n) if fewest else n, self.sizes.layers).reshape(len(n), -1))
        return np.concatenate(left)

    def _run(self, step: int, place: int, bar: tqdm) -> None:
        if (step, place) not in self._counts:
            self._batch_counts(step, place)
            bar.total = max(bar.total or 0, bar.n + 1)
            bar.update()

    def _left(self, step: int, bar: tqdm) -> np.ndarray:
        """Tokens left of every sample after each layer, (samples, layers), each batch run."""
        for place in range(len(self._names)):
            self._run(step, place, bar)
        return self._bound(step, range(len(self._names)), fewest=True)

    def _after(self, place: int, dropped: np.ndarray) -> np.ndarray:
        return self._visual[place][:, None] - dropped.cumsum(1)

    def _bar(self, reduction: float) -> tqdm:
        """Progress of one budget's search, in batches; the total is what a search takes as a rule."""
        expected = len(self._names) + (len(self._names) + 3) // 4
        return tqdm(total=expected, desc=f"fit: {reduction:.0%}", unit="batch", disable=not self.progress, leave=False)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        try:
            yield
        except Interrupted:
            raise
        except KeyboardInterrupt:
            raise Interrupted(sum(len(counted) for counted in self._visual), self._spool.keep()) from None

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
            "versions": {name: importlib.metadata.version(name) for name in ("fitprune-bench", "torch", "transformers")},
        }


def _identity(model: nn.Module) -> str:
    """What tells one model from another in a folder of statistics: its configuration, and some of its weights."""
    parts = model_parts(model)
    config: dict[str, Any] = cast(Any, model.config).to_dict()
    config = {name: value for name, value in config.items() if name not in ("_name_or_path", "transformers_version")}
    modules = {"tower": parts.tower, "first": parts.layers[0], "last": parts.layers[-1]}
    weights = {name: next(module.parameters()) for name, module in modules.items()}
    return digest(json.dumps(config, sort_keys=True, default=str), weights)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first number above `low` at which `holds` does, given that from there on it does, up to `high`."""
    return low + 1 + bisect.bisect_left(range(low + 1, high), True, key=holds)


def _near(guess: int, holds: Callable[[int], bool]) -> int:
    """The smallest step at which `holds` does, given that it holds from there on and at the last: looked for around `guess`."""
    stride = 1
    if holds(guess):
        while guess - stride > 0 and holds(guess - stride):
            guess, stride = guess - stride, 2 * stride
        return _first(max(guess - stride, 0), guess, holds)
    while guess + stride < ALPHA_STEPS and not holds(guess + stride):
        guess, stride = guess + stride, 2 * stride
    return _first(guess, min(guess + stride, ALPHA_STEPS), holds)


def _within(spent: Callable[[int], float]) -> int:
    """The first step at which what is spent is at most the budget, 1."""
    return _first(0, ALPHA_STEPS, lambda step: spent(step) <= 1)


def _frozen(visual_tokens: np.ndarray, left: np.ndarray, stop: int) -> np.ndarray:
    """Tokens left (samples, layers) when nothing more is dropped from layer `stop` on."""
    entered = np.concatenate([visual_tokens[:, None], left], 1)
    return entered[:, np.minimum(np.arange(1, entered.shape[1]), stop)]


def _scaled(curve: np.ndarray, scale: float, visual_tokens: int) -> list[int]:
    """Drop counts of the curve of shares left (layers,), its distance from 1 scaled, rounded to whole tokens."""
    left = np.rint(visual_tokens * (1 - scale * (1 - curve)).clip(min=0)).astype(int)
    return [int(count) for count in -np.diff(left, prepend=visual_tokens)]
