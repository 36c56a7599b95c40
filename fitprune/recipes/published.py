"""The authors' own recipes, by name: `published:llava-1.5-7b@60`.

Source: the per-layer deletion tables in the inference code of github.com/ywh187/FitPrune (arXiv 2409.10197), for
LLaVA-1.5-7B at 576 visual tokens and LLaVA-HR-7B at 1024. A table is named by the percentage of FLOPs that its authors
asked for. It saves less, since they floor each layer's mean count: 60 gives 59.7 %, 10 gives 6.4 %. `Recipe.reduction` is
what it really saves.
"""

import functools
import json
from importlib import resources
from typing import Any

from fitprune.errors import RecipeError
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes.recipe import Recipe

SCHEME = "published:"


def published_recipe(name: str) -> Recipe:
    """The published recipe `model@percentage`, such as `llava-1.5-7b@60`.

    Raises:
        RecipeError: there is none; the message says which there are.
    """
    table = _tables()
    model, _, percent = name.partition("@")
    if percent not in table.get(model, {"drop": {}})["drop"]:
        there = " and ".join(f"{known}@{','.join(entry['drop'])}" for known, entry in table.items())
        raise RecipeError(f"there is no published recipe '{name}'; there are {there}.")
    entry = table[model]
    recipe = Recipe(entry["drop"][percent]["per_layer"], entry["visual_tokens"], _sizes(entry))
    recipe.provenance.update(
        model=model,
        budget={"asked": int(percent) / 100, "reached": recipe.reduction, "scoring_counted": False},
        source=_source(),
    )
    return recipe


def published_names() -> list[str]:
    """All of them, by model, then by percentage: `llava-1.5-7b@10`, …"""
    return [f"{model}@{percent}" for model, entry in _tables().items() for percent in entry["drop"]]


def nearest_published(sizes: DecoderSizes | None, reduction: float) -> tuple[str, Recipe] | None:
    """The published recipe for a decoder of these sizes whose reduction is nearest, and its name; None where there is none."""
    same = [(name, published_recipe(name)) for name in published_names()]
    same = [(name, published) for name, published in same if published.sizes == sizes]
    return min(same, key=lambda pair: abs(pair[1].reduction - reduction), default=None)


@functools.cache
def _file() -> dict[str, Any]:
    return json.loads(resources.files("fitprune.recipes").joinpath("published_recipes.json").read_text(encoding="utf-8"))


def _tables() -> dict[str, dict[str, Any]]:
    return {model: entry for model, entry in _file().items() if isinstance(entry, dict)}


def _source() -> str:
    return _file()["source"]


def _sizes(entry: dict[str, Any]) -> DecoderSizes:
    return DecoderSizes(
        model_type=entry["model_type"],
        layers=entry["layers"],
        hidden_size=entry["hidden"],
        intermediate_size=entry["intermediate"],
        kv_size=entry["kv_size"],
        q_size=entry["q_size"],
    )
