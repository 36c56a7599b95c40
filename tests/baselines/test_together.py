"""Methods in sequence by one name: what they save together, how the saving is split, what is refused."""

import copy
import dataclasses
import json
import pickle

import pytest
import torch

from baselines.before_decoder.visionzip import VisionZip
from baselines.controls.random_pruning import Random
from baselines.registry import COMPOSED, PRUNERS, get_pruner_class
from fitprune import BudgetError, Calibration, Composed, FitPrune, FitPruneError
from tests.support.models import batch, build, kept, prompt
from tests.support.shortened import measured

pytestmark = pytest.mark.releases
NAMES = [
    "visionzip+fitprune",
    "divprune+fastv",
    "random+uniform",
    "vispruner+pyramiddrop",
    *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("pool+fastv", "vtw+fastv")),
    *(
        pytest.param(name, marks=pytest.mark.exhaustive)
        for name in ("tome+fitprune", "fitprune+visionzip", "fastv+pyramiddrop", "dart+visionzip", "random+uniform+fastv")
    ),
]


@pytest.fixture(scope="module")
def model():
    return build("llama-gqa", 8, patch=2, heads=4, seed=1)


@pytest.fixture(scope="module")
def batches(model):
    parts = [[2, "image", 6], [1, "image", 9], [3, "image", 4]]
    return [batch([prompt(model, one, seed) for seed, one in enumerate(parts)])]


def solved(name, model, batches, reduction, **options):
    fitting = {"fitprune": {"model": model, "batches": batches}} if "fitprune" in name else None
    return get_pruner_class(name).for_reduction(model.config, reduction, options=fitting, **options)


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("reductions", [(0.3, 0.7), (0.5, 0.9)])
@pytest.mark.parametrize("name", NAMES)
def test_all_together_save_what_is_asked_for_and_more_is_more(name, reductions, model, batches):
    savings = []
    for reduction in reductions:
        words = ""
        try:
            pruner = solved(name, model, batches, reduction)
        except BudgetError as error:
            words = str(error)
        if words:
            # Methods that keep all in their first layers.
            assert reduction == 0.9, words
            assert words.startswith(f"{name} cannot save 90.0% of this model's visual-token FLOPs: with ")
            reached = float(words.rpartition("it reaches ")[2].removesuffix("%.")) / 100
            assert 0.7 < reached < 0.9
            assert "\n" not in words
            # What it says, it does.
            pruner = solved(name, model, batches, round(reached - 0.015, 3))
            assert measured(model, pruner, prompt(model, [3, "image", 16])) == pytest.approx(reached - 0.015, abs=0.01)
            continue
        assert isinstance(pruner, Composed)
        assert pruner.name == name
        savings.append(measured(model, pruner, prompt(model, [3, "image", 16])))
        assert savings[-1] == pytest.approx(reduction, abs=0.01)
        if reduction == 0.7:
            again = solved(name, model, batches, reduction)
            assert again.params() | {"provenance": 0} == pruner.params() | {"provenance": 0}
    assert savings == sorted(savings)


@pytest.mark.parametrize("name", COMPOSED)
def test_every_pair_of_composed_saves_what_is_asked_for(name, model, batches):
    """A method before the decoder, then one that goes on between layers."""
    pruner = solved(name, model, batches, 0.5)
    inputs = prompt(model, [3, "image", 16])
    assert measured(model, pruner, inputs) == pytest.approx(0.5, abs=0.01)
    with torch.no_grad(), pruner(model) as trace:
        model(**inputs)
    assert 144 > int(trace.visual_in[0]) > int(trace.visual_out[-1])


@pytest.mark.parametrize(("split", "share"), [(None, 0.5), ([0.25, 0.75], 0.25), ([0.8, 0.2], 0.8)])
@pytest.mark.parametrize("name", ["random+uniform", pytest.param("visionzip+fitprune", marks=pytest.mark.exhaustive)])
def test_the_first_saves_its_share(name, split, share, model, batches):
    pruner = solved(name, model, batches, 0.6, split=split)
    inputs = prompt(model, [3, "image", 16])
    assert measured(model, pruner.members[0], inputs) == pytest.approx(0.6 * share, abs=0.01)
    assert measured(model, pruner, inputs) == pytest.approx(0.6, abs=0.01)


@pytest.mark.exhaustive
def test_the_recipe_is_fitted_on_what_the_first_one_leaves(model, batches):
    pruner = solved("visionzip+fitprune", model, batches, 0.6)
    zipping, fitting = pruner.members
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, [3, "image", 5]))
    assert fitting.recipe.visual_tokens == int(trace.visual_in[0])
    own = Calibration(model, batches, progress=False, after=zipping)
    assert fitting.recipe.provenance["statistics"] == own.digest != Calibration(model, batches, progress=False).digest
    with torch.no_grad():
        counts = [solved("visionzip+fitprune", model, batches, reduction).members[1].recipe.drop for reduction in (0.5, 0.8)]
    assert counts[0] != counts[1]


@pytest.mark.exhaustive
def test_a_recipe_that_is_given_is_taken_as_it_is(model, batches):
    pruner = solved("visionzip+fitprune", model, batches, 0.6)
    recipe = pruner.members[1].recipe
    again = get_pruner_class("visionzip+fitprune").for_reduction(model.config, 0.6, options={"fitprune": {"recipe": recipe}})
    assert again == pruner


def test_seeds_reach_the_methods_that_draw(model):
    pruner = get_pruner_class("random+uniform").for_reduction(model.config, 0.5, seed=7)
    assert pruner.members[0].seed == 7
    other = get_pruner_class("random+uniform").for_reduction(model.config, 0.5, seed=8)
    inputs = prompt(model, [3, "image", 5])
    seen = []
    for each in (pruner, other):
        with torch.no_grad(), each(model) as trace:
            model(**inputs)
        seen.append(kept(trace))
    assert seen[0] != seen[1]


@pytest.mark.exhaustive
def test_params_name_every_part_and_copies_are_equal(model, batches):
    pruner = solved("visionzip+fitprune", model, batches, 0.6)
    params = json.loads(json.dumps(pruner.params()))
    assert [part["name"] for part in params["pruners"]] == ["visionzip", "fitprune"]
    assert params["pruners"][1]["drop"] == pruner.members[1].recipe.drop
    assert params["provenance"]["fitprune"]["budget"]
    assert copy.deepcopy(pruner) == pickle.loads(pickle.dumps(pruner)) == pruner
    kept_ids = dataclasses.replace(pruner, positions="kept")
    assert [member.positions for member in kept_ids.members] == ["kept", "kept"]
    assert dataclasses.replace(kept_ids, positions="repacked").members[1].positions == "repacked"


def test_a_name_is_one_class():
    assert get_pruner_class("visionzip+fitprune") is get_pruner_class("visionzip+fitprune")
    assert get_pruner_class("visionzip+fitprune").methods == (VisionZip, FitPrune)
    assert get_pruner_class("visionzip+fitprune").name == "visionzip+fitprune"
    assert "visionzip+fitprune" not in PRUNERS


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("visionzip+", "no pruner beside it"),
        ("+fastv", "no pruner beside it"),
        ("visionzip++fastv", "no pruner beside it"),
        ("visionzip+fastvv", "unknown pruner 'fastvv'; did you mean fastv"),
        ("dense+fastv", "dense prunes nothing"),
        ("fastv+dense", "dense prunes nothing"),
        ("random+random", "names random twice"),
        ("all+fastv", "unknown pruner 'all'"),
    ],
)
def test_names_that_are_none(name, said):
    with pytest.raises(FitPruneError, match=said) as error:
        get_pruner_class(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": [0.5]}, "share above 0 for each of 2"),
        ({"split": [0.5, 0.6]}, "add up to 1"),
        ({"split": [1.0, 0.0]}, "share above 0"),
        ({"options": {"fastv": {}}}, "fastv is not among random, uniform"),
    ],
)
def test_arguments_that_cannot_be(options, said, model):
    with pytest.raises(FitPruneError, match=said) as error:
        get_pruner_class("random+uniform").for_reduction(model.config, 0.5, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("visionzip+vtw", "vtw is to save a part of it, but VTW cannot save .* it reaches"),
        ("visionzip+fitprune", "pass model= and batches="),
        ("tome+downsample", "change what runs in the vision tower"),
    ],
)
def test_budgets_that_cannot_be_met_say_why(name, said, model):
    with pytest.raises(FitPruneError, match=said) as error:
        get_pruner_class(name).for_reduction(model.config, 0.47)
    assert "\n" not in str(error.value)


def test_the_second_draws_from_what_is_left(model):
    with torch.no_grad(), Composed([Random(0.5), Random(0.5, seed=1)])(model) as trace:
        model(**prompt(model, [3, "image", 5]))
    assert [len(layer) for layer in kept(trace)] == [36] * 8
