"""The authors' own recipes, by name: `published:llava-1.5-7b@60`.

Source: the per-layer deletion tables in the inference code of github.com/ywh187/FitPrune (arXiv 2409.10197), for
LLaVA-1.5-7B at 576 visual tokens, LLaVA-HR-7B at 1024 and LLaVA-NeXT-7B at 2880 (commit fcddfbd2). A table is named by the
percentage of FLOPs that its authors asked for, and saves another: they floor each layer's mean count, so that 60 gives
59.7 % and 10 gives 6.4 % of LLaVA-1.5; LLaVA-NeXT's give 40.3 % and 60.3 %. `Recipe.reduction` is what it really saves. For
another number of tokens the code of LLaVA-NeXT floors each layer's scaled count (`Recipe.scaling`); the other two know one.
"""

import functools
import json
from importlib import resources
from typing import Any

from fitprune.errors import RecipeError
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes.fields import RecipeFields

SCHEME = "published:"


def entry(name: str) -> RecipeFields:
    """What the published recipe `model@percentage` holds, such as `llava-1.5-7b@60`.

    Raises:
        RecipeError: there is none; the message says which there are.
    """
    table = _tables()
    model, _, percent = name.partition("@")
    if percent not in table.get(model, {"drop": {}})["drop"]:
        there = " and ".join(f"{known}@{','.join(tables['drop'])}" for known, tables in table.items())
        raise RecipeError(f"there is no published recipe '{name}'; there are {there}.")
    tables = table[model]
    recipe = RecipeFields(
        tables["drop"][percent]["per_layer"], tables["visual_tokens"], _sizes(tables), scaling=tables.get("scaling", "left")
    )
    recipe.provenance.update(
        model=model,
        budget={"asked": int(percent) / 100, "reached": recipe.reduction, "scoring_counted": False},
        source=_source(),
    )
    return recipe


def published_names() -> list[str]:
    """The names of all published recipes, by model, then by percentage: `llava-1.5-7b@10`, …"""
    return [f"{model}@{percent}" for model, entry in _tables().items() for percent in entry["drop"]]


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
