"""`Calibrated`: what the calibration samples say of a model, worked out once for all budgets, processes and runs.

It is kept in the results folder's `shared/`: the recipes that FitPrune was fitted with, and how many visual tokens a prompt
has.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from baselines.registry import get_pruner_class
from fitprune import BudgetError, Calibration, FitPrune, Recipe
from fitprune.models.sizes import visual_tokens
from harness.cells import FITPRUNE, CellSettings
from harness.models.facts import ModelFacts
from harness.models.loading import LoadedModel, ModelOutline
from harness.pruners.solve import solve
from harness.results.key import digest_of
from harness.results.once import RunFolder, readable, slug
from harness.results.result import versions
from harness.results.sources import code_digest
from harness.tasks.calibration import Batches, calibration_batches, origin, sample_files
from harness.tasks.parquet import file_digest
from harness.tasks.typical import typical_tokens, video_tokens
from harness.tasks.videos.questions import video_prompts


class Models(Protocol):
    """Where models come from."""

    def model(self, name: str) -> LoadedModel: ...

    def outline(self, name: str) -> LoadedModel | ModelOutline: ...


class Calibrated:
    """What is known of models from calibration samples.

    Args:
        kept: where it is kept, and found by others.
        models: asked for a model only where something is not there yet.
        recipes: what keeps a fitted recipe under a name, as a file for people; None keeps none.
    """

    def __init__(
        self, settings: CellSettings, kept: RunFolder, models: Models, recipes: Callable[[str, Recipe], None] | None = None
    ) -> None:
        self.settings = settings
        self.kept = kept
        self.models = models
        self.recipes = recipes

    def typical_tokens(self, facts: ModelFacts, suite: str = "", frames: int = 0) -> int | None:
        """Visual tokens of a prompt, where the images decide; None where the configuration fixes the number. Of a suite whose
        videos are shown by `frames` frames those of its own prompts.
        """
        if frames:
            prompts = video_prompts(suite, self.settings.data)
            decides = digest_of([facts.weights, versions(), frames, file_digest([path for path, _ in prompts])], 12)
            name = f"tokens-{readable(facts.name)}-{suite}-{decides}"
            return self.kept.once(name, lambda: video_tokens(self.models.outline(facts.name), prompts, frames))
        if visual_tokens(facts.config) is not None:
            return None
        name = f"tokens-{readable(facts.name)}-{self._digest(facts)}"
        return self.kept.once(name, lambda: typical_tokens(self.models.outline(facts.name), self.settings.data))

    def recipe(self, facts: ModelFacts, reduction: float, frames: int = 0) -> Recipe:
        """The recipe fitted for a budget; with `frames`, on videos shown by so many. Raises BudgetError as the fit did.

        Whoever comes first fits those of the run's budgets that are not there yet, from one calibration. The calibration's
        statistics are kept, too, for budgets that a later run asks for.
        """
        name = f"{readable(facts.name)}-{self._digest(facts, frames)}"
        fitted = self.kept.get(_recipe(name, reduction))
        if fitted is None:
            fitted = self.kept.alone(f"calibration-{name}", lambda: self._fit(facts, name, reduction, frames))
        return _read(fitted[0])

    def recipe_among(
        self, facts: ModelFacts, pruners: str, reduction: float, given: Mapping[str, Any], frames: int = 0
    ) -> Recipe:
        """FitPrune's recipe where it is one of several pruners, "visionzip+fitprune", that save `reduction` together.

        It is fitted on what the others leave, which depends on the budget, so each budget has a calibration of its own. `given`
        are further arguments of `solve`. Raises BudgetError as the fit did.
        """
        codes = [code_digest(get_pruner_class(name)) for name in (pruners, *pruners.split("+"))]
        decides = digest_of([self._digest(facts, frames), codes, given], 12)
        name = _recipe(f"{readable(facts.name)}-{readable(pruners)}-{decides}", reduction)
        return _read(self.kept.once(name, lambda: self._fitted_among(facts, pruners, reduction, given, frames)))

    def _digest(self, facts: ModelFacts, frames: int = 0) -> str:
        """Of what decides a calibration of the model."""
        decides = [facts.weights, facts.dtype, facts.device, self._samples(frames), versions(), code_digest(FitPrune)]
        return digest_of([*decides, frames] if frames else decides, 12)

    def _samples(self, frames: int) -> str:
        return file_digest(sample_files(self.settings.data, frames > 0))

    def _fit(self, facts: ModelFacts, name: str, reduction: float, frames: int) -> tuple[Any]:
        """The record of one budget's recipe; those of the run's other budgets are put beside it."""
        budgets = dict.fromkeys((*self.settings.reductions, reduction))
        missing = [budget for budget in budgets if self.kept.get(_recipe(name, budget)) is None]
        if missing:
            loaded = self.models.model(facts.name)
            batches, source = self._prompts(loaded, frames)
            with self.kept.files.folder(f"calibration-{name}") as keep:
                calibration = Calibration(loaded.model, batches, progress=False, origin=source, keep=keep)
                for budget in missing:
                    self.kept.once(_recipe(name, budget), functools.partial(self._fitted, loaded, calibration, budget, frames))
        found = self.kept.get(_recipe(name, reduction))
        assert found is not None
        return found

    def _prompts(self, loaded: LoadedModel, frames: int) -> tuple[Batches, dict[str, Any]]:
        """What a model is fitted on, and where that is from."""
        data = self.settings.data
        return calibration_batches(loaded, data, frames=frames), origin(loaded, data, frames)

    def _fitted(self, loaded: LoadedModel, calibration: Calibration, reduction: float, frames: int) -> dict[str, Any]:
        try:
            recipe = calibration.recipe(reduction, scoring=True)
        except BudgetError as error:
            return {"error": str(error)}
        if self.recipes is not None:
            name = f"{slug(loaded.name)}-{loaded.revision[:12]}-{reduction:g}"
            self.recipes(f"{name}-{frames}-frames" if frames else name, recipe)
        return {"recipe": recipe.to_record()}

    def _fitted_among(
        self, facts: ModelFacts, pruners: str, reduction: float, given: Mapping[str, Any], frames: int
    ) -> dict[str, Any]:
        loaded = self.models.model(facts.name)
        batches, source = self._prompts(loaded, frames)
        fitting = {"model": loaded.model, "batches": batches, "origin": source}
        try:
            pruner = solve(pruners, reduction, facts.config, **given, options={FITPRUNE: fitting})
        except BudgetError as error:
            return {"error": str(error)}
        recipe = next(member.recipe for member in pruner.members if isinstance(member, FitPrune))
        return {"recipe": recipe.to_record()}


def _recipe(name: str, reduction: float) -> str:
    """What a budget's recipe is called."""
    return f"recipe-{reduction:g}-{name}"


def _read(fitted: Mapping[str, Any]) -> Recipe:
    """The recipe, or the refusal, that was kept."""
    if "error" in fitted:
        raise BudgetError(fitted["error"])
    return Recipe.from_record(fitted["recipe"])
