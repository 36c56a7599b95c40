"""What lmms-eval's command line asks for: the pruner that `--model_args` describe, and numbers in them."""

import inspect
from dataclasses import fields
from typing import Any

from baselines.registry import get_pruner_class
from fitprune import FitPrune, Pruner
from fitprune.errors import FitPruneError, unknown_name
from harness.models.loading import LoadedModel
from harness.pruners.solve import from_recipe, solve
from harness.tasks.typical import typical_tokens


def make_pruner(
    loaded: LoadedModel,
    recipe: str | None = None,
    pruner: str | None = None,
    reduction: float | None = None,
    data: str = "mini",
    **options: Any,
) -> Pruner | None:
    """The pruner that command-line arguments describe: a recipe, or a method's name with its reduction and options.

    Where the number of visual tokens depends on the image, `data` says what prompts are typical.
    """
    if recipe is not None:
        if pruner not in (None, "fitprune") or reduction is not None or options:
            raise FitPruneError("recipe=FILE already says how much is pruned: leave out pruner, reduction and options")
        return from_recipe(recipe, loaded.model.config)
    if pruner is None:
        if reduction is not None or options:
            given = ["reduction"] * (reduction is not None) + sorted(options)
            raise FitPruneError(f"{', '.join(given)}: name the pruner it is for (pruner=NAME), or give recipe=FILE")
        return None
    method = get_pruner_class(pruner)
    if issubclass(method, FitPrune):
        raise FitPruneError("FitPrune needs recipe=FILE; make one with 'python -m fitprune fit'")
    known = [option.name for option in fields(method)]
    if reduction is not None:  # which solves one of them
        known = [name for name in known if name in inspect.signature(method.for_reduction).parameters]
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {pruner}", name, known)
    if reduction is None:
        return method(**options)
    if not isinstance(reduction, float) or not 0 < reduction < 1:
        raise FitPruneError(f"reduction must be a number between 0 and 1, not {reduction}")
    return solve(pruner, reduction, loaded.model.config, visual_tokens=typical_tokens(loaded, data), **options)


def whole_number(name: str, value: Any) -> int:
    """A whole number of at least 1. Raises FitPruneError for anything else, shares among them."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if number < 1 or number != int(number):
        raise FitPruneError(f"{name} must be a whole number of at least 1, not '{value}'")
    return int(number)
