"""A method's counts and its scoring, foretold from a configuration, are those of a real run."""

import functools

import pytest
import torch

from baselines.before_decoder.dart_embeddings import DARTEmbeddings
from baselines.before_decoder.visionzip import VisionZip
from baselines.between_layers.dart import DART
from baselines.between_layers.fastv import FastV
from baselines.between_layers.pyramiddrop import PyramidDrop
from baselines.between_layers.sparsevlm import SparseVLM, SparseVLMPlus
from baselines.between_layers.vtw import VTW
from baselines.controls.pool import Pool
from baselines.controls.random_pruning import Random
from baselines.in_tower.tome import ToMe
from baselines.registry import PRUNERS as REGISTERED
from baselines.registry import get_pruner_class
from baselines.shared import dry_run
from baselines.shared.dry_run import WIDTHS, Plans, _decoder, plan
from fitprune import Composed, FitPrune, Recipe
from fitprune.models.sizes import DecoderSizes
from harness.models.registry import find_model
from harness.models.shipped import transformers_config
from harness.pruners.solve import solve
from tests.support.models import build, prompt

PRUNERS = {
    "fitprune": FitPrune(Recipe(drop=[3, 0, 5, 1], visual_tokens=36)),
    "fitprune, rescaled": FitPrune(Recipe(drop=[30, 0, 50, 10], visual_tokens=360)),
    "fastv": FastV(k=2, r=0.4),
    "random": Random(ratio=0.3),
    "vtw": VTW(2),
}


@pytest.mark.product(strength=2)
@pytest.mark.parametrize("text_tokens", [5, 150], ids=["one block of rows", "several blocks"])
@pytest.mark.parametrize("decoder", ["llama", "llama-gqa", "mistral", "qwen2"])
@pytest.mark.parametrize("name", PRUNERS)
def test_a_plan_is_what_happens(name, decoder, text_tokens):
    model = build(decoder, 4)
    inputs = prompt(model, ["image", text_tokens])
    with torch.no_grad(), PRUNERS[name](model) as trace:
        model(**inputs)
    planned = plan(PRUNERS[name], model.config, text_tokens, 36)
    assert planned.scoring_macs == trace.scoring_macs
    assert planned.text_tokens.tolist() == trace.text_tokens.tolist() == [text_tokens]
    assert planned.visual_tokens.tolist() == trace.visual_tokens.tolist() == [36]
    for side in ("visual_in", "visual_out"):
        assert [row.tolist() for row in getattr(planned, side)] == [row.tolist() for row in getattr(trace, side)]


@pytest.mark.parametrize("decoder", ["llama", "llama-gqa"])
@pytest.mark.parametrize(
    "pruner",
    [
        DART(max_num_trunction=16, visual_tokens=36),
        PyramidDrop((1, 2, 3)),
        SparseVLM(128, (0, 1, 2)),
        SparseVLMPlus(64, (0, 1, 2)),
    ],
    ids=lambda pruner: pruner.name,
)
def test_methods_that_look_at_hidden_states_and_at_the_text(pruner, decoder):
    model = build(decoder, 4)
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, ["image", 20]))
    planned = plan(pruner, model.config, 20, 36)
    assert [int(row) for row in planned.visual_in] == [int(row) for row in trace.visual_in]
    for foretold, spent in zip(planned.scoring_macs, trace.scoring_macs, strict=True):
        if isinstance(pruner, SparseVLM):  # some text tokens rate; all are taken to
            assert spent <= foretold <= 20 * spent
        else:  # one query, projected ahead, is taken to have the size of the keys
            assert foretold == pytest.approx(spent, rel=0.04)


def test_a_recipe_bound_to_the_real_model_can_be_planned():
    model = build("llama", 3)
    recipe = Recipe(drop=[3, 0, 5], visual_tokens=36).for_model(model.config)
    planned = plan(FitPrune(recipe), model.config, 5, 36)
    assert [int(row) for row in planned.visual_out] == [33, 33, 28]
    assert recipe.sizes is not None


def test_planning_draws_nothing_from_the_caller_s_generator():
    config = build("llama", 2).config
    state = torch.get_rng_state()
    _decoder.cache_clear()
    plan(PRUNERS["random"], config, 5, 36)
    assert torch.equal(torch.get_rng_state(), state)


def test_decoders_are_built_once():
    config = build("llama", 4).config
    _decoder.cache_clear()
    first, again = (plan(PRUNERS["fitprune"], config, 5, 36) for _ in range(2))
    assert first == again
    assert _decoder.cache_info().misses == len(WIDTHS)


COMPOSED = {
    "visionzip+fitprune": [VisionZip(200, 120, layer=-1), FitPrune(Recipe([3, 5, 0, 4], 18))],
    "random+fastv+fitprune": [Random(0.3), FastV(k=2, r=0.4), FitPrune(Recipe([3, 5, 0, 4], 18))],
    "random+visionzip": [Random(0.3), VisionZip(200, 120, layer=-1)],
    "fastv+visionzip": [FastV(k=2, r=0.4), VisionZip(200, 120, layer=-1)],
    "fastv+tome": [FastV(k=2, r=0.4), ToMe([7, 5])],
    "pool+pyramiddrop": [Pool(4, 5), PyramidDrop((1, 2, 3))],
    "vtw+random": [VTW(2), Random(1.0)],
}


@pytest.mark.parametrize("name", COMPOSED)
def test_pruners_one_after_the_other(name):
    model = build("llama", 4)
    with torch.no_grad(), Composed(COMPOSED[name])(model) as trace:
        model(**prompt(model, ["image", 5]))
    planned = plan(Composed(COMPOSED[name]), model.config, 5, 36)
    for side in ("visual_in", "visual_out"):
        assert [row.tolist() for row in getattr(planned, side)] == [row.tolist() for row in getattr(trace, side)]
    assert planned.visual_tokens.tolist() == [36]
    assert planned.scoring_macs == pytest.approx(trace.scoring_macs, rel=0.02)


MANY = PRUNERS | {
    "pyramiddrop": PyramidDrop((1, 2, 3)),
    "sparsevlm": SparseVLM(128, (0, 1, 2)),
    "dart": DART(max_num_trunction=16, visual_tokens=36),
    "visionzip": VisionZip(200, 120, layer=-1),
    "visionzip+fitprune": Composed(COMPOSED["visionzip+fitprune"]),
}


@pytest.fixture
def dry(monkeypatch):
    """The numbers of text tokens for which a dry run was made."""
    texts = []
    monkeypatch.setattr(dry_run, "plan", lambda *given: texts.append(given[2]) or plan(*given))
    return texts


FEW = ("fitprune", "fastv", "sparsevlm", "visionzip", "visionzip+fitprune")


@pytest.mark.parametrize("name", [name if name in FEW else pytest.param(name, marks=pytest.mark.exhaustive) for name in MANY])
def test_plans_of_many_prompts_are_those_of_dry_runs_and_none_is_made_twice(name, dry):
    """A method whose scoring is known to be a polynomial is tried on one text more than its degree, and on short ones."""
    config, texts, pruner = build("llama-gqa", 4).config, [20, 7, 150, 7, 20], MANY[name]
    plans = Plans(pruner, config)
    assert [plans.of(text, 36) for text in texts] == [plan(pruner, config, text, 36) for text in texts]
    tried = [16, 32, 64][: pruner.text_degree + 1] if pruner.text_degree is not None else None
    assert dry == ([20] if name == "visionzip" else [*tried, 7] if tried else [20, 7, 150])  # VisionZip sees no text
    assert plans.of(20, 30) == plan(pruner, config, 20, 30)


def test_more_pivots_than_a_short_text_has_are_no_polynomial(dry):
    config = build("llama", 4).config
    for pruner in (DART(pivot_text_token=20), DARTEmbeddings(pivot_text_token=20)):
        plans = Plans(pruner, config)
        assert [plans.of(text, 36) for text in (17, 150)] == [plan(pruner, config, text, 36) for text in (17, 150)]
    assert dry == [17, 150] * 2


@pytest.mark.parametrize("text", [40, 66, 114])
def test_all_text_tokens_rate_at_each_length(text):
    """Means over so many of them are rounded, and a dry run of such a text takes some for above the mean."""
    config, pruner = build("llama", 4).config, SparseVLM(128, (0, 1, 2))
    sizes = DecoderSizes.of(config)
    for first, n in ([], 36), ([Random(0.3)], 25):
        found = Plans(Composed([*first, pruner]), config).of(text, 36)
        assert found.scoring_macs[0] == text * (n * sizes.hidden_size + (n + text) * sizes.q_size)


@pytest.fixture
def literal(monkeypatch):
    """Dry runs on a decoder all of whose layers run."""

    def decoder(layers, width):
        model = _decoder.__wrapped__(layers, width)
        for layer in model.get_decoder().layers:
            del layer.forward
        return model

    monkeypatch.setattr(dry_run, "_decoder", functools.cache(decoder))


@pytest.mark.parametrize("name", ["fitprune", "fastv", "pyramiddrop", "sparsevlm", "dart"])
def test_layers_that_a_dry_run_leaves_out_change_nothing(name, request):
    config = build("llama-gqa", 4).config
    found = Plans(MANY[name], config).of(150, 36)
    request.getfixturevalue("literal")
    assert found == plan(MANY[name], config, 150, 36)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "name", ["dart", "dart-embeddings", *(name for name in REGISTERED if get_pruner_class(name).text_degree is not None)]
)
def test_a_large_decoder_s_plans_are_those_of_literal_dry_runs(name, request):
    config = transformers_config(find_model("llava-1.5-7b"))
    pruner = solve(name, 0.6, config, visual_tokens=576, seed=0)
    found = [Plans(pruner, config).of(text, 576) for text in (17, 37, 150)]
    request.getfixturevalue("literal")
    assert found == [plan(pruner, config, text, 576) for text in (17, 37, 150)]
