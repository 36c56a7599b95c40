"""Recipes: files that survive a round trip and refuse nonsense, and schedules for other token counts."""

import itertools
import json
import os
import random
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

import fitprune
from fitprune import FitPruneError, Recipe, RecipeError

PUBLISHED = json.loads((Path(fitprune.__file__).parent / "published_recipes.json").read_text(encoding="utf-8"))


def config(layers=32, hidden=4096, intermediate=11008):
    text = LlamaConfig(hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=32)
    return LlavaConfig(vision_config=CLIPVisionConfig(image_size=336, patch_size=14), text_config=text)


def cases(count=300):
    """Seeded random recipes, those that ask for more than is left among them."""
    source = random.Random(0)
    for _ in range(count):
        tokens = source.choice([1, 2, 7, 36, 144, 576, 2880])
        layers = source.randint(1, 40)
        most = source.choice([1, max(tokens // layers, 1), tokens, 2 * tokens])
        yield [source.randint(0, most) if source.random() < 0.7 else 0 for _ in range(layers)], tokens, source


@pytest.mark.parametrize(
    ("model", "budget"),
    [(model, budget) for model, table in PUBLISHED.items() if isinstance(table, dict) for budget in table["drop"]],
)
def test_published_recipes_save_what_is_listed(model, budget):
    table = PUBLISHED[model]
    entry = table["drop"][budget]
    recipe = Recipe(entry["per_layer"], table["visual_tokens"]).for_model(
        config(table["layers"], table["hidden"], table["intermediate"])
    )
    assert round(recipe.reduction, 5) == entry["reduction_visual_macs"]
    assert table["visual_tokens"] - sum(recipe.drop) == entry["left_after_last_layer"]


def test_a_round_trip(tmp_path):
    recipe = Recipe([0, 12, 3] + [0] * 29, 576, provenance={"samples": 655, "note": "two\nlines, ü"}).for_model(config())
    recipe.save(tmp_path / "recipe.json")
    loaded = Recipe.load(tmp_path / "recipe.json")
    assert loaded == recipe
    assert loaded.reduction == recipe.reduction
    assert list(tmp_path.iterdir()) == [tmp_path / "recipe.json"]
    record = json.loads((tmp_path / "recipe.json").read_text(encoding="utf-8"))
    assert record["drop"] == recipe.drop
    assert record["reduction"] == recipe.reduction


def test_a_round_trip_of_a_recipe_written_by_hand(tmp_path):
    recipe = Recipe(drop=(np.int64(3), torch.tensor(4), 0), visual_tokens=np.int32(36))
    recipe.save(str(tmp_path / "recipe.json"))
    loaded = Recipe.load(str(tmp_path / "recipe.json"))
    assert loaded == recipe
    assert loaded.drop == [3, 4, 0]
    assert all(type(count) is int for count in loaded.drop)
    with pytest.raises(RecipeError, match="for_model"):
        _ = loaded.reduction


def test_saving_replaces_and_can_be_read_by_others(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text("old")
    os.umask(mask := os.umask(0))
    Recipe([1, 2], 36).save(path)
    assert Recipe.load(path).drop == [1, 2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_the_schedule_at_its_own_count_is_drop():
    for drop, tokens, _ in cases():
        left, expected = tokens, []
        for count in drop:
            expected.append(min(count, left))
            left -= expected[-1]
        assert Recipe(drop, tokens).schedule(tokens) == expected


def test_a_schedule_never_drops_more_than_is_left_and_is_monotone():
    for drop, tokens, source in cases():
        recipe = Recipe(drop, tokens)
        counts = sorted({0, 1, tokens, *(source.randint(0, 3 * tokens) for _ in range(4))})
        before = None
        for n in counts:
            schedule = recipe.schedule(n)
            assert len(schedule) == len(drop)
            assert min(schedule) >= 0
            assert sum(schedule) <= n
            left = [n - dropped for dropped in itertools.accumulate(schedule)]
            if before is not None:
                # More tokens in the prompt never leave fewer after any layer.
                assert all(a <= b for a, b in zip(before, left, strict=True))
            before = left


def test_a_schedule_keeps_the_shares():
    for drop, tokens, source in cases(100):
        n = source.randint(1, 3 * tokens)
        left, share = n, tokens
        for ours, theirs in zip(Recipe(drop, tokens).schedule(n), drop, strict=True):
            left, share = left - ours, max(share - theirs, 0)
            assert abs(left - n * share / tokens) <= 0.5


def test_a_schedule_of_twice_the_tokens_is_twice_the_drop():
    assert Recipe([3, 0, 5, 9], 36).schedule(72) == [6, 0, 10, 18]


@pytest.mark.parametrize(
    ("drop", "tokens"),
    [
        ([1, -2], 36),
        ([1.0, 2], 36),
        ([1.5], 36),
        ([True, 1], 36),
        (["1"], 36),
        ([None], 36),
        ([], 36),
        ("12", 36),
        (5, 36),
        (None, 36),
        ([float("nan")], 36),
        ([1], 0),
        ([1], -1),
        ([1], 36.0),
        ([1], True),
        ([1], None),
        ([[1], [2]], 36),
    ],
    ids=str,
)
def test_nonsense_is_refused(drop, tokens, tmp_path):
    with pytest.raises(RecipeError) as error:
        Recipe(drop, tokens)
    assert "\n" not in str(error.value)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"format": "fitprune-recipe", "version": 1, "drop": drop, "visual_tokens": tokens}))
    with pytest.raises(RecipeError) as error:
        Recipe.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"drop: [1]", "JSON"),
        (b"\xff\xfe\x00", "JSON"),
        (b"[1, 2]", "not a recipe"),
        (b"3", "not a recipe"),
        (b"{}", "not a recipe"),
        (b'{"drop": [1], "visual_tokens": 36}', "not a recipe"),
        (b'{"format": "fitprune-recipe", "drop": [1], "visual_tokens": 36}', "version"),
        (b'{"format": "fitprune-recipe", "version": 99, "drop": [1], "visual_tokens": 36}', "99"),
        (b'{"format": "fitprune-recipe", "version": 1, "visual_tokens": 36}', "drop"),
        (b'{"format": "fitprune-recipe", "version": 1, "drop": [1]}', "visual_tokens"),
        (b'{"format": "fitprune-recipe", "version": 1, "drop": [1], "visual_tokens": 36, "model": 3}', "malformed"),
        (
            b'{"format": "fitprune-recipe", "version": 1, "drop": [1], "visual_tokens": 36, "model": {"x": 1}}',
            "malformed",
        ),
        (
            b'{"format": "fitprune-recipe", "version": 1, "drop": [1], "visual_tokens": 36, "provenance": 3}',
            "malformed",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[2:50],
)
def test_files_that_are_no_recipes(tmp_path, content, said):
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=said) as error:
        Recipe.load(path)
    assert "\n" not in str(error.value)
    assert "recipe.json" in str(error.value)


def test_sizes_that_are_no_sizes(tmp_path):
    """A file edited to nonsense is refused when it is read, not when its reduction is asked for."""
    path = tmp_path / "recipe.json"
    Recipe([1] * 32, 576).for_model(config()).save(path)
    record = json.loads(path.read_text())
    for name, value in (
        ("hidden_size", "4096"),
        ("kv_size", -1),
        ("layers", 31),
        ("intermediate_size", None),
        ("model_type", 5),
    ):
        path.write_text(json.dumps({**record, "model": {**record["model"], name: value}}))
        with pytest.raises(RecipeError):
            Recipe.load(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match=r"absent\.json"):
        Recipe.load(tmp_path / "absent.json")
    with pytest.raises(RecipeError, match=r"cannot read"):
        Recipe.load(tmp_path)


def test_a_save_that_fails_leaves_nothing_half_written(tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="cannot write"):
        Recipe([1], 36).save(tmp_path / "absent" / "recipe.json")
    folder = tmp_path / "recipe.json"
    folder.mkdir()
    with pytest.raises(RecipeError, match="cannot write"):
        Recipe([1], 36).save(folder)
    assert list(tmp_path.iterdir()) == [folder]
    path = tmp_path / "kept.json"
    Recipe([1], 36).save(path)
    for failure in (OSError(28, "No space left on device"), KeyboardInterrupt()):

        def fail(*_, failure=failure):
            raise failure

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", fail)
            with pytest.raises((RecipeError, KeyboardInterrupt)):
                Recipe([2], 36).save(path)
        assert sorted(tmp_path.iterdir()) == [path, folder]
        assert Recipe.load(path).drop == [1]


def test_provenance_that_json_cannot_hold(tmp_path):
    with pytest.raises((RecipeError, TypeError)):
        Recipe([1], 36, provenance={"model": object()}).save(tmp_path / "recipe.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", [config(40), config(hidden=5120), config(intermediate=13824)], ids=["deep", "wide", "ffn"])
def test_a_recipe_of_another_model(other):
    recipe = Recipe([1] * 32, 576).for_model(config())
    with pytest.raises(RecipeError) as error:
        recipe.for_model(other)
    assert "\n" not in str(error.value)
    assert recipe.for_model(config()) == recipe


def test_a_recipe_of_the_wrong_depth():
    with pytest.raises(RecipeError, match=r"31.*32"):
        Recipe([1] * 31, 576).for_model(config())


def test_a_recipe_is_not_changed_by_its_list():
    counts = [1, 2, 3]
    recipe = Recipe(counts, 36)
    counts[0] = 30
    assert recipe.drop == [1, 2, 3]


def test_errors_are_value_errors_of_the_package():
    assert issubclass(RecipeError, FitPruneError)
    assert issubclass(FitPruneError, ValueError)
