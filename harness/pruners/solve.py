"""`solve` and `from_recipe`: the one place where a method's name and a budget, or a recipe's, become a pruner.

`Solver` does so for a model whose speed is asked for: several methods and budgets share one calibration.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from baselines.registry import get_pruner_class
from fitprune import Calibration, FitPrune, Pruner, Recipe
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes.recipe_text import nearest_published


def solve(
    name: str, reduction: float, config: Any, *, visual_tokens: int | None = None, seed: int | None = None, **options: Any
) -> Pruner:
    """The method with its free parameter solved so that it saves `reduction` of the visual tokens' FLOPs.

    Args:
        config: the model's transformers configuration.
        visual_tokens: of a prompt; None where the configuration fixes it.
        seed: for methods that draw; the others take no notice.
        options: the method's own.

    Raises FitPruneError: an unknown name; BudgetError, one of them: a budget that the method cannot reach.
    """
    method = get_pruner_class(name)
    if seed is not None and "seed" in inspect.signature(method.for_reduction).parameters:
        options["seed"] = seed
    return method.for_reduction(config, reduction, visual_tokens=visual_tokens, **options)


def from_recipe(recipe: str, config: Any) -> FitPrune:
    """FitPrune with a recipe, a file or `published:NAME@P`. Raises FitPruneError if it is not one for this model."""
    return FitPrune(Recipe.load(recipe).for_model(config))


class Solver:
    """Makes pruners for one model.

    Args:
        visual_tokens: of the prompts that are timed.
        batches: what FitPrune is fitted on.
        batches_are: what they are, for people: "the timed prompt".
    """

    def __init__(self, model: Any, visual_tokens: int, batches: Iterable[Mapping[str, torch.Tensor]], batches_are: str) -> None:
        self.model, self.visual_tokens = model, visual_tokens
        self.batches, self.batches_are = batches, batches_are
        self._calibration: Calibration | None = None

    def pruner(self, name: str, reduction: float) -> tuple[Pruner, str]:
        """The method at its budget, and where its parameters are from; empty where they follow from the budget.

        FitPrune takes the published recipe that is nearest to the budget where its authors have given any within ten points
        of it for this decoder, since a recipe fitted on noise has another shape than one fitted on pictures.

        Raises:
            FitPruneError: an unknown name; BudgetError, one of them: a budget that the method cannot reach.
        """
        given: dict[str, Any] = {}
        origin = ""
        if issubclass(get_pruner_class(name), FitPrune):
            given, origin = self._parameters(reduction)
        elif FitPrune.name in name.split("+"):
            given = {"options": {FitPrune.name: {"model": self.model, "batches": self.batches}}}
            origin = f"fitted on {self.batches_are}"
        return solve(name, reduction, self.model.config, visual_tokens=self.visual_tokens, **given), origin

    def _parameters(self, reduction: float) -> tuple[dict[str, Any], str]:
        """What FitPrune is solved with, and where that is from."""
        published = nearest_published(DecoderSizes.of(self.model.config), reduction)
        if published is not None and abs(published[1].reduction - reduction) <= 0.1:
            name, recipe = published
            return {"recipe": recipe}, f"published recipe {name}"
        if self._calibration is None:
            self._calibration = Calibration(self.model, self.batches, progress=False)
        return {"calibration": self._calibration}, f"fitted on {self.batches_are}"
