"""Pruners at a FLOPs budget, for a model whose speed is asked for: several methods and budgets share one calibration."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from baselines.registry import get_pruner_class
from fitprune import Calibration, FitPrune, Pruner
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes.recipe_text import nearest_published


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

        FitPrune takes the published recipe that is nearest to the budget where its authors have given any for this
        decoder, since a recipe fitted on noise has another shape than one fitted on pictures.

        Raises:
            FitPruneError: an unknown name; BudgetError, one of them: a budget that the method cannot reach.
        """
        method = get_pruner_class(name)
        if issubclass(method, FitPrune):
            return self._fitprune(method, reduction)
        return method.for_reduction(self.model.config, reduction, visual_tokens=self.visual_tokens), ""

    def _fitprune(self, method: type[FitPrune], reduction: float) -> tuple[Pruner, str]:
        config = self.model.config
        published = nearest_published(DecoderSizes.of(config), reduction)
        if published is not None:
            name, recipe = published
            pruner = method.for_reduction(config, reduction, recipe=recipe, visual_tokens=self.visual_tokens)
            return pruner, f"published recipe {name}"
        if self._calibration is None:
            self._calibration = Calibration(self.model, self.batches, progress=False)
        pruner = method.for_reduction(config, reduction, calibration=self._calibration, visual_tokens=self.visual_tokens)
        return pruner, f"fitted on {self.batches_are}"
