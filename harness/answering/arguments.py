"""What lmms-eval's command line asks for: the pruner that `--model_args` describe, numbers in them, generation options."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from baselines.registry import get_pruner_class
from fitprune import Composed, FitPrune, Pruner
from fitprune.errors import FitPruneError, unknown_name
from harness.models.facts import ModelFacts
from harness.models.loading import LoadedModel
from harness.pruners.solve import from_recipe, solve
from harness.results.result import versions
from harness.results.sources import code_of
from harness.results.strict_json import strict
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
        raise FitPruneError("FitPrune needs recipe=FILE; make one with 'fitprune fit'")
    if FitPrune.name in pruner.split("+"):
        raise FitPruneError(f"{pruner} needs a recipe that is fitted for it; run it with pytest suites/ --pruner {pruner}")
    if issubclass(method, Composed) and reduction is None:
        raise FitPruneError(f"{pruner} is solved for a budget: give reduction=")
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


def answered_by(facts: ModelFacts, pruner: Pruner) -> dict[str, Any]:
    """What decides a model's answers under a pruner, but for the questions and the precision: content, no paths."""
    return {
        "weights": facts.weights,
        "pruner": pruner.name,
        "params": strict(pruner.params()),
        "code": code_of(pruner),
        "versions": versions(),
        "device": facts.device,
    }


# Generation options that answers here follow, and those of tasks that are other models' own.
_HEARD = {"max_new_tokens", "until", "do_sample", "temperature", "top_p", "top_k", "num_beams", "image_aspect_ratio", "seed"}
_NEUTRAL = {"repetition_penalty": 1, "min_new_tokens": 0, "no_repeat_ngram_size": 0, "num_return_sequences": 1, "n": 1}


def refuse_unheard(task: str, options: Mapping[str, Any]) -> None:
    """Raise FitPruneError for a generation option that would have no effect."""
    for name, value in options.items():
        if name not in _HEARD and (name not in _NEUTRAL or value != _NEUTRAL[name]):
            raise FitPruneError(
                f"task '{task}': the generation option {name}={value!r} is not supported; max_new_tokens and until are"
            )


def whole_number(name: str, value: Any) -> int:
    """A whole number of at least 1. Raises FitPruneError for anything else, shares among them."""
    try:
        number = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = 0.0
    if number < 1 or not number.is_integer():
        raise FitPruneError(f"{name} must be a whole number of at least 1, not '{value}'")
    return int(number)
