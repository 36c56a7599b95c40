"""The authors' recipes by name, wherever a recipe is asked for."""

import json
import subprocess
from pathlib import Path

import pytest
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

import fitprune
from fitprune import FitPrune, FitPruneError, Recipe, RecipeError
from fitprune.recipes.published import published_names
from fitprune.recipes.recipe_text import nearest_published
from harness.answering.arguments import make_pruner
from harness.cells import Cell
from harness.plugin.options import check_recipe
from tests.support import warm

pytestmark = pytest.mark.releases
ROOT = Path(__file__).parents[3]
TABLES = json.loads((Path(fitprune.__file__).parent / "recipes" / "published_recipes.json").read_text(encoding="utf-8"))
NAMES = [(model, percent) for model in ("llava-1.5-7b", "llava-hr-7b", "llava-next-7b") for percent in TABLES[model]["drop"]]
TOKENS = {"llava-1.5-7b": 576, "llava-hr-7b": 1024, "llava-next-7b": 2880}
LISTED = "llava-1.5-7b@10,20,30,40,50,55,60,70,80,90 and llava-hr-7b@40,60 and llava-next-7b@40,60"

# Share of the visual tokens' FLOPs that each of the authors' tables really saves, from the facts about their code.
REDUCTIONS = {
    "llava-1.5-7b@10": 0.0644,
    "llava-1.5-7b@20": 0.1535,
    "llava-1.5-7b@30": 0.2790,
    "llava-1.5-7b@40": 0.3885,
    "llava-1.5-7b@50": 0.4966,
    "llava-1.5-7b@55": 0.5450,
    "llava-1.5-7b@60": 0.5970,
    "llava-1.5-7b@70": 0.6972,
    "llava-1.5-7b@80": 0.7969,
    "llava-1.5-7b@90": 0.8968,
    "llava-hr-7b@40": 0.3884,
    "llava-hr-7b@60": 0.5961,
    "llava-next-7b@40": 0.4033,
    "llava-next-7b@60": 0.6030,
}


def llava_7b(**sizes):
    """The configuration of LLaVA-1.5-7B: Vicuna-7B's sizes behind CLIP-L/14 at 336 pixels."""
    text = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    return LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=336, patch_size=14), text_config=LlamaConfig(**{**text, **sizes})
    )


@pytest.mark.parametrize(("model", "percent"), NAMES)
def test_they_save_what_is_listed(model, percent):
    table, entry = TABLES[model], TABLES[model]["drop"][percent]
    recipe = Recipe.published(model, int(percent))
    assert recipe.drop == entry["per_layer"]
    assert recipe.visual_tokens == table["visual_tokens"] == TOKENS[model]
    assert round(recipe.reduction, 5) == entry["reduction_visual_macs"]
    assert recipe.reduction == pytest.approx(REDUCTIONS[f"{model}@{percent}"], abs=5e-5)
    assert recipe.visual_tokens - sum(recipe.drop) == entry["left_after_last_layer"]
    assert recipe.provenance["budget"] == {"asked": int(percent) / 100, "reached": recipe.reduction, "scoring_counted": False}
    assert (recipe.reduction < int(percent) / 100) == (model != "llava-next-7b")  # nominal percentages are missed
    assert Recipe.load(f"published:{model}@{percent}") == recipe


def test_all_names():
    assert published_names() == list(REDUCTIONS)


def test_they_fit_their_own_model_alone():
    recipe = Recipe.published("llava-1.5-7b", 60)
    assert recipe.for_model(llava_7b()) == recipe
    for other in (llava_7b(num_hidden_layers=40), llava_7b(hidden_size=5120), llava_7b(num_key_value_heads=8)):
        with pytest.raises(RecipeError, match="this recipe is for llava with 32 layers"):
            recipe.for_model(other)
    with pytest.raises(RecipeError, match="this recipe is for llava_hr with"):
        Recipe.published("llava-hr-7b", 60).for_model(llava_7b())


@pytest.mark.parametrize("percent", [40, 60])
@pytest.mark.parametrize("tokens", [2880, 2879, 2144, 1968, 1200, 1, 0])
def test_llava_nexts_counts_are_scaled_as_by_its_authors(tmp_path, percent, tokens):
    recipe = Recipe.published("llava-next-7b", percent)
    recipe.save(tmp_path / "recipe.json")
    theirs = [int(count * tokens / 2880) for count in TABLES["llava-next-7b"]["drop"][str(percent)]["per_layer"]]
    assert recipe.schedule(tokens) == Recipe.load(tmp_path / "recipe.json").schedule(tokens) == theirs
    if tokens == 1968:  # elsewhere the tokens left are rounded
        assert Recipe(recipe.drop, 2880).schedule(tokens) != theirs


def test_the_scaling_is_a_part_of_what_identifies_a_pruner():
    theirs = Recipe.published("llava-next-7b", 40)
    usual = Recipe(theirs.drop, 2880, theirs.sizes, theirs.provenance)
    assert FitPrune(theirs).params() == {**FitPrune(usual).params(), "scaling": "counts"}


def test_floored_counts_never_drop_more_than_is_left():
    assert Recipe([30, 30, 30], 36, scaling="counts").schedule(36) == [30, 6, 0]
    assert Recipe([30, 30, 30], 36, scaling="counts").schedule(19) == [15, 4, 0]
    with pytest.raises(RecipeError, match="scaling must be left or counts, not 'up'"):
        Recipe([1], 36, scaling="up")


def test_they_can_be_saved(tmp_path):
    recipe = Recipe.published("llava-hr-7b", 40)
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe


def test_one_that_is_changed_does_not_change_the_next():
    Recipe.published("llava-1.5-7b", 60).provenance.clear()
    Recipe.published("llava-1.5-7b", 60).drop[0] = 500
    assert Recipe.published("llava-1.5-7b", 60).drop == TABLES["llava-1.5-7b"]["drop"]["60"]["per_layer"]
    assert Recipe.published("llava-1.5-7b", 60).provenance["model"] == "llava-1.5-7b"


@pytest.mark.parametrize(
    "name",
    ["llava-1.5-7b@65", "llava-1.5-7b@0.6", "llava-1.5-7b@60%", "llava-1.5-7b", "llava-1.5-13b@60", "@60", "", "source@60"],
)
def test_an_unknown_name_says_what_there_is(name):
    with pytest.raises(RecipeError) as error:
        Recipe.load(f"published:{name}")
    assert str(error.value) == f"there is no published recipe '{name}'; there are {LISTED}."


def test_a_file_of_that_name_is_a_path_away(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Recipe([1, 2], 36).save("published:mine")
    assert Recipe.load("./published:mine").drop == [1, 2]


@pytest.mark.parametrize(
    ("reduction", "nearest"), [(0.02, 10), (0.10, 10), (0.12, 20), (0.52, 50), (0.53, 55), (0.6, 60), (0.95, 90)]
)
def test_the_nearest_by_what_is_really_saved(reduction, nearest):
    first, last = 0, 576  # a recipe that drops k tokens in layer 0
    while last - first > 1:
        middle = (first + last) // 2
        saved = Recipe([middle] + [0] * 31, 576).for_model(llava_7b()).reduction
        first, last = (middle, last) if saved < reduction else (first, middle)
    dropping = Recipe([last] + [0] * 31, 576).for_model(llava_7b())
    name, recipe = nearest_published(dropping.sizes, dropping.reduction)
    assert name == f"llava-1.5-7b@{nearest}"
    assert recipe == Recipe.published("llava-1.5-7b", nearest)


def test_no_published_recipe_is_near_another_model():
    assert nearest_published(Recipe([1] * 32, 576).sizes, 0.5) is None
    deeper = Recipe([1] * 40, 576).for_model(llava_7b(num_hidden_layers=40))
    assert nearest_published(deeper.sizes, deeper.reduction) is None


class Loaded:
    """What `make_pruner` looks at."""

    class model:
        config = llava_7b()


def test_lmms_eval_takes_them():
    from lmms_eval.utils import simple_parse_args_string

    given = simple_parse_args_string("pretrained=llava-1.5-7b,recipe=published:llava-1.5-7b@60")
    pruner = make_pruner(Loaded, recipe=given["recipe"])
    assert pruner.recipe == Recipe.published("llava-1.5-7b", 60)
    with pytest.raises(FitPruneError, match=r"there is no published recipe 'llava-1\.5-7b@61'"):
        make_pruner(Loaded, recipe="published:llava-1.5-7b@61")
    with pytest.raises(FitPruneError, match="this recipe is for llava_hr"):
        make_pruner(Loaded, recipe="published:llava-hr-7b@60")


def test_pytest_suites_takes_them(tmp_path):
    llava_7b().save_pretrained(tmp_path)
    check_recipe("published:llava-1.5-7b@60", [str(tmp_path)])
    with pytest.raises(FitPruneError, match=r"there is no published recipe 'llava-1\.5-7b@61'"):
        check_recipe("published:llava-1.5-7b@61", [str(tmp_path)])
    label = Cell("llava-1.5-7b", "fitprune", None, "gqa", "published:llava-1.5-7b@60").label()
    assert label == "llava-1.5-7b-fitprune-published:llava-1.5-7b@60"


def test_pytest_suites_refuses_one_for_another_model(tmp_path):
    command = [warm.python(), "-m", "pytest", str(ROOT / "suites" / "test_gqa.py"), "-p", "no:cacheprovider"]
    command += ["--model", "llava-tiny", "--recipe", "published:llava-1.5-7b@60", "--results", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 4
    (line,) = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    assert line.startswith(
        "ERROR: --recipe published:llava-1.5-7b@60 does not fit llava-tiny: this recipe is for llava with 32 layers"
    )
    assert list(tmp_path.iterdir()) == []
