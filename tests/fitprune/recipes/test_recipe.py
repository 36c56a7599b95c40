"""Recipes: files that survive a round trip and refuse nonsense, and schedules for other token counts."""

import itertools
import json
import os
import random
import stat

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from fitprune import FitPruneError, Recipe, RecipeError

pytestmark = pytest.mark.releases


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


def test_a_round_trip(tmp_path):
    recipe = Recipe([0, 12, 3] + [0] * 29, 576, provenance={"data": {"samples": 655}, "note": "two\nlines, ü"}).for_model(
        config()
    )
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
def test_nonsense_is_refused(drop, tokens):
    with pytest.raises(RecipeError) as error:
        Recipe(drop, tokens)
    assert "\n" not in str(error.value)


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


@pytest.mark.parametrize(
    "provenance",
    [{"note": object()}, {"alpha": float("nan")}, {"alpha": "0.5"}, {"budget": 0.6}],
    ids=["object", "nan", "alpha", "budget"],
)
def test_provenance_that_a_file_cannot_hold(tmp_path, provenance):
    with pytest.raises(RecipeError, match="cannot be written") as error:
        Recipe([1], 36, provenance=provenance).save(tmp_path / "recipe.json")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_asks_for_more_than_is_left_has_no_file(tmp_path):
    """By hand it means all that is left; in a file, which is shared, it would be an error, so none is written."""
    recipe = Recipe([30, 30], 36)
    assert recipe.schedule(36) == [30, 6]
    with pytest.raises(RecipeError, match=r"60.*36"):
        recipe.save(tmp_path / "recipe.json")
    assert list(tmp_path.iterdir()) == []
    Recipe(recipe.schedule(36), 36).save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json").drop == [30, 6]


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
