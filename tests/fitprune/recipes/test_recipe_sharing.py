"""Recipes on the hub, against a stand-in: written with a card, read again by recipe and method, refused in one line."""

import pytest

from fitprune import FitPrune, Recipe, RecipeError
from fitprune.recipes.sharing import card
from tests.support.hub import COMMIT, stand_in


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with stand_in(tmp_path / "hub") as standing:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", standing.url)
        template = standing.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_x")
        yield standing


def test_a_recipe_is_pushed_with_a_card_and_comes_back(hub):
    recipe = Recipe([4, 0, 9, 3], 36, provenance={"model": "owner/model"})
    assert recipe.push_to_hub("me/mine").endswith(f"/me/mine/commit/{COMMIT}")
    assert Recipe.from_hub("me/mine") == recipe
    assert FitPrune.from_pretrained("me/mine").recipe == recipe
    assert 'FitPrune.from_pretrained("me/mine")' in (hub.folder / "me/mine/README.md").read_text()
    with pytest.raises(RecipeError, match=r"has no certificate; fitprune tune writes one\."):
        Recipe.from_hub("me/mine", require_certificate=True)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: Recipe.from_hub("me/none"), "cannot get a recipe from me/none: "),
        (lambda: Recipe.from_hub("not a name"), "cannot get a recipe from not a name: "),
        (lambda: Recipe([1], 36).push_to_hub("me/theirs"), "the recipe cannot be written to me/theirs: "),
        (lambda: Recipe([40], 36).push_to_hub("me/mine"), "the recipe cannot be written to me/mine: its layers drop 40 visual"),
    ],
)
def test_what_the_hub_has_not_or_refuses_is_one_line(hub, ask, said):
    hub.refused.add("me/theirs")
    with pytest.raises(RecipeError, match=said) as error:
        ask()
    assert "\n" not in str(error.value)
    assert not (hub.folder / "me").exists() or not any((hub.folder / "me").iterdir())


def test_the_card_by_hand():
    said = card(Recipe([10, 0, 26], 40, provenance={"model": "owner/model"}), "me/mine").splitlines()
    assert said[:5] == [
        "---",
        "library_name: fitprune-bench",
        "tags: [fitprune, token-pruning, vision-language-model]",
        "base_model: owner/model",
        "---",
    ]
    assert said[-3:] == [f"| 0 | 10 | 30 | `{'#' * 30}` |", f"| 1 | 0 | 30 | `{'#' * 30}` |", f"| 2 | 26 | 4 | `{'#' * 4}` |"]
    assert "None: nothing was shown of what it loses." in said


def test_a_file_or_a_published_recipe_is_no_repository(tmp_path):
    Recipe([1, 2], 10).save(tmp_path / "recipe.json")
    assert FitPrune.from_pretrained(tmp_path / "recipe.json").recipe.drop == [1, 2]
    assert FitPrune.from_pretrained("published:llava-1.5-7b@60").recipe == Recipe.published("llava-1.5-7b", 60)
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.load(tmp_path / "none.json")
