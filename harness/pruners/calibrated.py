"""`Calibrated`: what the calibration samples say of a model, worked out once for all budgets, processes and runs.

It is kept in the results folder's `shared/`: the recipes that FitPrune was fitted with, and how many visual tokens a prompt
has.
"""

import functools
from pathlib import Path
from typing import Any, Protocol

from fitprune import BudgetError, Calibration, FitPrune, Recipe
from fitprune.models.sizes import visual_tokens
from harness.cells import CellSettings
from harness.models.facts import ModelFacts
from harness.models.loading import LoadedModel, ModelOutline
from harness.results.key import code_digest, digest_of
from harness.results.once import RunFolder, slug
from harness.results.result import versions
from harness.tasks.calibration import calibration_batches, origin, sample_file
from harness.tasks.parquet import file_digest
from harness.tasks.typical import typical_tokens


class Models(Protocol):
    """Where models come from."""

    def model(self, name: str) -> LoadedModel: ...

    def outline(self, name: str) -> LoadedModel | ModelOutline: ...


class Calibrated:
    """What is known of models from calibration samples.

    Args:
        kept: where it is kept, and found by others.
        models: asked for a model only where something is not there yet.
        recipes: a folder for the fitted recipes as files for people; None writes none.
    """

    def __init__(self, settings: CellSettings, kept: RunFolder, models: Models, recipes: Path | None = None) -> None:
        self.settings = settings
        self.kept = kept
        self.models = models
        self.recipes = recipes

    def typical_tokens(self, facts: ModelFacts) -> int | None:
        """Visual tokens of a prompt, where the images decide; None where the configuration fixes the number."""
        if visual_tokens(facts.config) is not None:
            return None
        name = f"tokens-{slug(facts.name)}-{self._digest(facts)}"
        return self.kept.once(name, lambda: typical_tokens(self.models.outline(facts.name), self.settings.data))

    def recipe(self, facts: ModelFacts, reduction: float) -> Recipe:
        """The recipe fitted for a budget; all budgets of the run share one calibration. Raises BudgetError as the fit did."""
        budgets = self.settings.reductions or (reduction,)
        name = f"recipes-{slug(facts.name)}-{self._digest(facts, reductions=budgets)}"
        fitted = self.kept.once(name, lambda: self._fit_all(facts.name, budgets))[f"{reduction:g}"]
        if "error" in fitted:
            raise BudgetError(fitted["error"])
        return Recipe.from_record(fitted["recipe"])

    def _digest(self, facts: ModelFacts, **more: Any) -> str:
        """Of what decides a calibration of the model, and of `more`."""
        model = [facts.revision, facts.weights, facts.dtype, facts.device]
        return digest_of([*model, self._samples, versions(), code_digest(FitPrune), more], 12)

    @functools.cached_property
    def _samples(self) -> str:
        return file_digest([sample_file(self.settings.data)])

    def _fit_all(self, name: str, budgets: tuple[float, ...]) -> dict[str, dict[str, Any]]:
        loaded = self.models.model(name)
        batches, source = calibration_batches(loaded, self.settings.data), origin(loaded, self.settings.data)
        calibration = Calibration(loaded.model, batches, progress=False, origin=source)
        fitted: dict[str, dict[str, Any]] = {}
        for reduction in budgets:
            try:
                recipe = calibration.recipe(reduction, scoring=True)
            except BudgetError as error:
                fitted[f"{reduction:g}"] = {"error": str(error)}
                continue
            fitted[f"{reduction:g}"] = {"recipe": recipe.to_record()}
            if self.recipes is not None:
                self.recipes.mkdir(parents=True, exist_ok=True)
                recipe.save(self.recipes / f"{slug(name)}-{loaded.revision[:12]}-{reduction:g}.json")
        return fitted
