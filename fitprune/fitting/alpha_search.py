"""`smallest_step`: the smallest alpha within a budget, found with few runs of the pruned model.

Alpha is a multiple of 1/128, `step / ALPHA_STEPS`; the published bisection runs every batch at seven of them. Here a forecast
picks where to start: a simulation on a few batches, corrected by runs of the same batches. The step that is found is then
verified: over all batches it is within the budget, and the step before it is not.

All of this rests on one property of the rule: a larger alpha leaves no more tokens after any layer.
"""

import bisect
import functools
from collections.abc import Callable, Iterable

import numpy as np

# The published bisection takes seven steps.
ALPHA_STEPS = 128

# The cost of the tokens left (samples, layers) of the first so many samples, as a share of the budget.
Spent = Callable[[np.ndarray], float]


class Runs:
    """Runs of the pruned model on calibration batches, each batch once at each alpha.

    Attributes:
        visual_tokens: per batch, an int array (samples,): tokens of each prompt.
        layers: of the decoder.
        run: from a step and the number of a batch, the tokens that each sample drops: int array (samples, layers).
        simulate: the same without running the model.
        counts: what `run` has given, by step and batch.
        on_run: called after each run.
    """

    def __init__(
        self,
        visual_tokens: list[np.ndarray],
        layers: int,
        run: Callable[[int, int], np.ndarray],
        simulate: Callable[[int, int], np.ndarray],
    ) -> None:
        self.visual_tokens, self.layers, self.run, self.simulate = visual_tokens, layers, run, simulate
        self.counts: dict[tuple[int, int], np.ndarray] = {}
        self.on_run: Callable[[], None] | None = None

    @property
    def batches(self) -> range:
        """The numbers of all batches."""
        return range(len(self.visual_tokens))

    def dropped(self, step: int, batch: int) -> np.ndarray:
        """Tokens that each sample of a batch drops at a step: int array (samples, layers)."""
        if (step, batch) not in self.counts:
            self.counts[step, batch] = self.run(step, batch)
            if self.on_run is not None:
                self.on_run()
        return self.counts[step, batch]

    def left(self, step: int, batches: Iterable[int] | None = None) -> np.ndarray:
        """Tokens left of every sample after each layer, (samples, layers), after running the batches (default: all)."""
        batches = self.batches if batches is None else batches
        return np.concatenate([self._after(batch, self.dropped(step, batch)) for batch in batches])

    def simulated(self, step: int, batches: Iterable[int]) -> np.ndarray:
        """`left` by simulation."""
        return np.concatenate([self._after(batch, self.simulate(step, batch)) for batch in batches])

    def bound(self, step: int, batches: Iterable[int], fewest: bool) -> np.ndarray:
        """The fewest, or the most, tokens that may be left, (samples, layers): by the runs so far, without another one.

        The next larger alpha at which a batch was run leaves no more tokens, the next smaller no fewer.
        """
        left = []
        for batch in batches:
            known = [other for other, where in self.counts if where == batch]
            near = [other for other in known if (other >= step if fewest else other <= step)]
            if near:
                left.append(self._after(batch, self.counts[min(near) if fewest else max(near), batch]))
            else:
                # Alpha 1 drops everything in the first layer, alpha 0 nothing.
                tokens = self.visual_tokens[batch]
                left.append(np.repeat(np.zeros_like(tokens) if fewest else tokens, self.layers).reshape(len(tokens), -1))
        return np.concatenate(left)

    def _after(self, batch: int, dropped: np.ndarray) -> np.ndarray:
        return self.visual_tokens[batch][:, None] - dropped.cumsum(1)


def smallest_step(runs: Runs, spent: Spent) -> int:
    """The smallest step at which `spent` is at most 1 over all batches; alpha 1 must be within the budget."""
    forecast = _forecast(runs, spent, range(max(1, len(runs.batches) // 16)))
    guess = _first_within(forecast)
    # The few batches may be cheaper or dearer than all of them: one pass over all corrects the forecast.
    bias = spent(runs.left(guess)) / forecast(guess)
    guess = _first_within(lambda step: bias * forecast(step))
    return _search_around(guess, lambda step: _reaches(runs, step, spent))


def _forecast(runs: Runs, spent: Spent, few: range) -> Callable[[int], float]:
    """What the batches `few` would spend at a step: simulated, and corrected by runs at the steps that look right."""
    ratios: dict[int, float] = {}

    @functools.cache
    def simulated(step: int) -> float:
        return spent(runs.simulated(step, few))

    def forecast(step: int) -> float:
        known = sorted(ratios)
        ratio = float(np.interp(step, known, [ratios[other] for other in known])) if known else 1.0
        return simulated(step) * ratio

    def learn(step: int) -> None:
        ratios[step] = spent(runs.left(step, few)) / simulated(step)

    # Runs of the search for another budget cost nothing.
    for step in {step for step, _ in runs.counts}:
        if all((step, batch) in runs.counts for batch in few):
            learn(step)
    while (guess := _first_within(forecast)) not in ratios:
        learn(guess)
    return forecast


def _reaches(runs: Runs, step: int, spent: Spent) -> bool:
    """Whether a step is within the budget over all batches; no more of them are run than the verdict takes."""
    for batch in runs.batches:
        if spent(runs.bound(step, runs.batches, fewest=True)) > 1:
            return False
        if spent(runs.bound(step, runs.batches, fewest=False)) <= 1:
            return True
        runs.dropped(step, batch)
    return spent(runs.left(step)) <= 1


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first number above `low` at which `holds` is true, given that it is true from there on, up to `high`."""
    return low + 1 + bisect.bisect_left(range(low + 1, high), True, key=holds)


def _first_within(spent: Callable[[int], float]) -> int:
    """The first step at which a forecast of the cost is within the budget, 1."""
    return _first(0, ALPHA_STEPS, lambda step: spent(step) <= 1)


def _search_around(guess: int, holds: Callable[[int], bool]) -> int:
    """The smallest step at which `holds` is true, given that it is true from there on and at the last step.

    The search starts at `guess` and doubles its stride, so that a good guess takes two verdicts.
    """
    stride = 1
    if holds(guess):
        while guess - stride > 0 and holds(guess - stride):
            guess, stride = guess - stride, 2 * stride
        return _first(max(guess - stride, 0), guess, holds)
    while guess + stride < ALPHA_STEPS and not holds(guess + stride):
        guess, stride = guess + stride, 2 * stride
    return _first(guess, min(guess + stride, ALPHA_STEPS), holds)
