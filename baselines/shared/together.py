"""Several methods by one name, `visionzip+fitprune`: their free parameters solved together for one FLOPs budget."""

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from baselines.shared.budget import TEXT_TOKENS, TOLERANCE, prompt_tokens
from baselines.shared.dry_run import plan
from fitprune import BudgetError, Calibration, Composed, FitPruneError, Pruner, UnsupportedModel
from fitprune.composed import OWN
from fitprune.flops import check_reduction, layer_macs
from fitprune.models.sizes import DecoderSizes, tower_sizes

NEAR = 0.001
"""The distance from the saving asked for at which the search for a parameter ends."""
TRIES = 8
LEAST = 0.001
"""The smallest saving that a method is asked for on the tokens that it works on."""
STEPS = 10
"""Points by which a method that saves in steps may miss its share, where a further one makes up for it."""

Solved = Callable[[float], tuple[float, Pruner]]
"""From what a method is asked to save to what all save then, and the method's pruner."""


class Together(Composed):
    """Base of the classes that `together` makes. `methods` are classes, in the order of the name."""

    methods: ClassVar[tuple[type[Pruner], ...]] = ()

    @classmethod
    def own_positions(cls, model_config: Any) -> str:
        """That of all methods; "own" where they differ."""
        choices = {method.own_positions(model_config) for method in cls.methods}
        return choices.pop() if len(choices) == 1 else OWN

    @classmethod
    def for_reduction(
        cls,
        model_config: Any,
        reduction: float,
        *,
        visual_tokens: int | None = None,
        split: Sequence[float] | None = None,
        seed: int | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Composed:
        """Solve the methods' free parameters so that all of them together save `reduction`.

        The first method is solved for its share of the saving. Each further one is then solved on the tokens that those before
        it leave before the decoder, so that what all save so far is the sum of their shares of `reduction`. A method that saves
        in steps may miss its share by up to ten points, which those after it make up for. What they save
        together, and what choosing costs each, is measured by a dry run (`dry_run.plan`), not added up. The result depends on
        the arguments alone, and a higher reduction never keeps more of the FLOPs but for the rounding of counts.

        Args:
            model_config, reduction, visual_tokens: see `Pruner.for_reduction`.
            split: the share of the saving of each method; shares add up to 1. By default all are alike.
            seed: for methods that draw.
            options: by method name, further arguments of its `for_reduction`. FitPrune's are `recipe`, which is taken as it is,
                `calibration`, or `model`, `batches` and `origin`: then its recipe is fitted on the tokens that the methods
                before it leave before the decoder (`Calibration(after=)`).

        Raises:
            BudgetError: out of reach; the message says what can be reached.
            FitPruneError: shares that do not add up, or options of another method.
        """
        check_reduction(reduction)
        shares = _shares(split, len(cls.methods))
        options = dict(options or {})
        if unknown := [name for name in options if name not in {method.name for method in cls.methods}]:
            raise FitPruneError(f"{unknown[0]} is not among {', '.join(method.name for method in cls.methods)}.")
        search = _Search("+".join(method.name for method in cls.methods), model_config, reduction, visual_tokens)
        targets = [reduction * share for share in itertools.accumulate(shares)]
        for number, method in enumerate(cls.methods, 1):
            last = number == len(cls.methods)
            given = dict(options.get(method.name, {}))
            if seed is not None and "seed" in inspect.signature(method.for_reduction).parameters:
                given["seed"] = seed
            # The last target is the whole, whatever shares add up to in floating point.
            search.add(method, reduction if last else targets[number - 1], given, last=last)
        return Composed(search.found)


@functools.cache
def together(methods: tuple[type[Pruner], ...]) -> type[Together]:
    """The class of these methods, one after the other; its `for_reduction` gives a `Composed`.

    Raises FitPruneError for a method for videos that is not the first.
    """
    if late := [method.name for method in methods[1:] if method.videos]:
        raise FitPruneError(f"{late[0]} compares whole frames, of which no other pruner may drop tokens; name it first.")
    return type("Together", (Together,), {"name": "+".join(method.name for method in methods), "methods": methods})


def _shares(split: Sequence[float] | None, methods: int) -> Sequence[float]:
    if split is None:
        return [1 / methods] * methods
    if len(split) != methods or min(split) <= 0 or abs(sum(split) - 1) > 1e-6:
        raise FitPruneError(f"split has a share above 0 for each of {methods} methods, which add up to 1, not {list(split)}.")
    return split


class _Search:
    """Methods solved one after the other; `found` are the pruners so far."""

    def __init__(self, name: str, config: Any, reduction: float, visual_tokens: int | None) -> None:
        self.name, self.config, self.reduction = name, config, reduction
        self.sizes, self.tokens = DecoderSizes.of(config), prompt_tokens(config, visual_tokens)
        self.found: list[Pruner] = []

    def add(self, method: type[Pruner], target: float, given: dict[str, Any], *, last: bool) -> None:
        """Solve one more method so that all save `target`; one that is not the `last` may come near it in steps."""
        before, entering = self.measured(self.found) if self.found else (0.0, self.tokens)
        if "batches" in given:
            after = Composed(self.found) if self.found else None
            fitting = {name: given.pop(name) for name in ("model", "batches", "origin") if name in given}
            given["calibration"] = Calibration(**fitting, progress=False, after=after)
        if "recipe" in given:
            self.found.append(method.for_reduction(self.config, target, **given))
            return
        scale = self._dense(entering) / self._dense(self.tokens)

        def solved(asked: float) -> tuple[float, Pruner]:
            pruner = method.for_reduction(self.config, asked, visual_tokens=entering, **given)
            return self.measured([*self.found, pruner])[0], pruner

        asked = (target - before) / scale if scale else 0.0
        if asked <= 0:
            raise self._error(f"{self._names()} alone saves {before:.1%}")
        best = None
        for _ in range(TRIES):
            # No method is asked for everything: what is out of reach says so.
            asked = min(max(asked, LEAST), 1 - LEAST)
            try:
                saved, pruner = solved(asked)
            except BudgetError as error:
                if best is None or abs(best[0] - target) > TOLERANCE:
                    best = self._furthest(solved, asked) if last and self.found else self._in_steps(solved, asked)
                if best is None:
                    raise self._error(f"{method.name} is to save a part of it, but {str(error).rstrip('.')}") from None
                if last and best[0] < target - TOLERANCE:
                    raise self._error(f"with {method.name} after {self._names()}, it reaches {best[0]:.1%}") from None
                break
            if best is None or abs(saved - target) < abs(best[0] - target):
                best = saved, pruner
            if not self.found or abs(saved - target) <= NEAR:
                break
            asked += (target - saved) / scale
        assert best is not None
        if last and abs(best[0] - target) > TOLERANCE:
            raise self._error(f"the nearest that {method.name} after {self._names()} makes it is {best[0]:.1%}")
        self.found.append(best[1])

    def _in_steps(self, solved: Solved, asked: float) -> tuple[float, Pruner] | None:
        """The nearest saving, within `STEPS` points, of a method that saves in steps; None if there is none."""
        for points in range(1, STEPS + 1):
            for nearby in (asked - points / 100, asked + points / 100):
                if 0 < nearby < 1:
                    with contextlib.suppress(BudgetError):
                        return solved(nearby)
        return None

    def _furthest(self, solved: Solved, asked: float) -> tuple[float, Pruner] | None:
        """The largest saving below one that is out of a method's reach; None if there is none."""
        found, low, high = None, 0.0, asked
        for _ in range(TRIES):
            middle = (low + high) / 2
            try:
                found, low = solved(middle), middle
            except BudgetError:
                high = middle
        return found

    def measured(self, pruners: Sequence[Pruner]) -> tuple[float, int]:
        """What pruners save, choosing included, as a share of the visual tokens' FLOPs; and the tokens that enter layer 0."""
        planned = plan(Composed(list(pruners)), self.config, TEXT_TOKENS, self.tokens, self._views())
        entered, left = ([int(count) for count in counts] for counts in (planned.visual_in, planned.visual_out))
        costs = self.sizes.costs()
        spent = sum(layer_macs(i, o, **costs) for i, o in zip(entered, left, strict=True))
        return 1 - (spent + sum(planned.scoring_macs)) / self._dense(self.tokens), entered[0]

    def _dense(self, tokens: int) -> int:
        return self.sizes.layers * layer_macs(tokens, tokens, **self.sizes.costs())

    def _views(self) -> int:
        try:
            return -(-self.tokens // tower_sizes(self.config).patches)
        except UnsupportedModel:
            return 1

    def _names(self) -> str:
        return "+".join(pruner.name for pruner in self.found)

    def _error(self, reason: str) -> BudgetError:
        return BudgetError(f"{self.name} cannot save {self.reduction:.1%} of this model's visual-token FLOPs: {reason}.")
