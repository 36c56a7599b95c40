"""The paper's cost: published tables, a by-hand layer, grouped-query attention, bad input."""

import json
from importlib import resources

import numpy as np
import pytest
import torch

from fitprune.errors import RecipeError
from fitprune.flops import reduction, visual_macs

PUBLISHED = json.loads(resources.files("fitprune.recipes").joinpath("published_recipes.json").read_text(encoding="utf-8"))
TABLES = [
    pytest.param(PUBLISHED[model], table, id=f"{model}-{nominal}")
    for model in ("llava-1.5-7b", "llava-hr-7b")
    for nominal, table in PUBLISHED[model]["drop"].items()
]


@pytest.mark.parametrize(("model", "table"), TABLES)
def test_published_tables_give_their_listed_reductions(model: dict, table: dict) -> None:
    drop = table["per_layer"]
    assert len(drop) == model["layers"]
    saved = reduction(drop, model["visual_tokens"], model["hidden"], model["intermediate"])
    assert round(saved, 5) == table["reduction_visual_macs"]
    assert model["visual_tokens"] - sum(drop) == table["left_after_last_layer"]


def test_all_published_tables_are_present() -> None:
    assert len(TABLES) == 12


def test_two_layers_by_hand() -> None:
    # H=4, I=10. Layer 0, 5 in, 3 out: 3·5·16 + 2·25·4 + 3·16 + 3·10·4·3. Layer 1, 3 in and out: 144 + 72 + 48 + 360.
    assert visual_macs([2, 0], 5, 4, 10) == (240 + 200 + 48 + 360) + 624


def test_grouped_query_attention_shrinks_only_keys_and_values() -> None:
    # H=4, kv=2: q stays 4×4, k and v are 4×2 each: 2·4·2 MACs fewer per token and layer; 5 tokens enter, then 3.
    assert visual_macs([2, 0], 5, 4, 10) - visual_macs([2, 0], 5, 4, 10, kv_size=2) == 16 * 5 + 16 * 3
    assert visual_macs([2, 0], 5, 4, 10, kv_size=4) == visual_macs([2, 0], 5, 4, 10)


def test_asking_for_more_than_is_left_drops_what_is_left() -> None:
    assert visual_macs([9, 7], 5, 4, 10) == visual_macs([5, 0], 5, 4, 10) == 440


def test_nothing_to_save() -> None:
    assert reduction([3, 3], 0, 4, 10) == 0.0
    assert reduction([], 5, 4, 10) == 0.0
    assert reduction([0, 0], 5, 4, 10) == 0.0


def test_integers_of_other_libraries_are_accepted() -> None:
    assert visual_macs(torch.tensor([2, 0]), 5, 4, 10) == visual_macs(np.array([2, 0]), np.int64(5), 4, 10) == 1472


@pytest.mark.parametrize("drop", [[-1, 0], [0, 2.0], [0, 1.5], [True, 0], ["2", 0], [None, 0]])
def test_bad_drops_are_refused_by_layer(drop: list) -> None:
    with pytest.raises(RecipeError, match=r"drop\[[01]\] must"):
        visual_macs(drop, 5, 4, 10)


@pytest.mark.parametrize("sizes", [(-5, 4, 10), (5, 4.0, 10), (5, 4, -1)])
def test_bad_sizes_are_refused_by_name(sizes: tuple) -> None:
    with pytest.raises(RecipeError, match=r"visual_tokens|hidden_size|intermediate_size"):
        visual_macs([0], *sizes)
