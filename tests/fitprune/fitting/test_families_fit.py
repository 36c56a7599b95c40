"""Fitting on prompts with as many visual tokens as their images happen to have, on the families beside LLaVA-1.5."""

import pytest
import torch

from baselines.controls.dense import Dense
from fitprune import Calibration, FitPrune, UnsupportedModel, fit
from fitprune.engine.patch import announce
from fitprune.flops import visual_macs
from fitprune.models.sizes import visual_tokens
from fitprune.search import drop_counts
from fitprune.search.prompts import embed
from tests.reference import fitting
from tests.reference.decoder import reference_of
from tests.reference.families import ThreeAxes
from tests.support.families import FAMILIES, build, inputs, processor
from tests.support.models import kept

pytestmark = pytest.mark.releases
SAMPLES = [
    ["w1 w2", (30, 20), "w3 w4 w5 w6"],
    ["w1", (40, 40), "w2"],
    ["w1", (20, 44), "w2", (30, 20), "w3 w4 w5"],
    [(11, 40), "w8 w9"],
]
OTHER_SIZES = {
    "gemma3": {"kv_size": 24, "q_size": 48},
    "llava_next": {"kv_size": 32},
    "smolvlm": {"kv_size": 32},
    "qwen3_vl": {"kv_size": 24, "q_size": 48},
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return build(request.param, 4, seed=8)


@pytest.fixture(scope="module")
def encode(model):
    made = processor(model.config.model_type)
    return lambda samples: inputs(made, samples)


def test_the_prompt_that_is_embedded_is_the_prompt_that_runs(model, encode):
    batch = encode(SAMPLES)
    prompt = embed(model, batch)
    assert torch.equal(prompt.visual_mask, batch["input_ids"] == model.config.image_token_id)
    with torch.no_grad(), Dense()(model):  # Gemma 3's masks are made before its decoder, or by a pruner
        announce(model, prompt.visual_mask, prompt.newline_mask)
        states = model.get_decoder()(**prompt.inputs, use_cache=False).last_hidden_state
        assert torch.equal(states, model.model(**batch, use_cache=False).last_hidden_state)
    reference = reference_of(model)
    if isinstance(reference, ThreeAxes):
        for row, parts in enumerate(SAMPLES):
            alone = encode([parts])
            positions, _ = reference.positions(alone, alone["input_ids"].shape[1])
            assert prompt.inputs["position_ids"][:, row, -len(positions) :].T.tolist() == [list(ids) for ids in positions]


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("alpha", [0.02, 0.2, 0.7])
def test_drop_counts_against_the_literal_rule(model, encode, alpha):
    check_counts(model, encode, alpha, [SAMPLES[1:3]])


@pytest.mark.exhaustive
@pytest.mark.parametrize("alpha", [0.02, 0.2, 0.7])
def test_drop_counts_of_more_samples_against_the_literal_rule(model, encode, alpha):
    check_counts(model, encode, alpha, [SAMPLES[:3], SAMPLES[3:]])


def check_counts(model, encode, alpha, batches):
    counts = drop_counts(model, [encode(samples) for samples in batches], alpha)
    assert counts.tolist() == [fitting.drops(model, encode([parts]), alpha) for samples in batches for parts in samples]


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("mode", ["sequential", "one-pass"])
def test_a_recipe_for_prompts_of_any_length(model, encode, mode):
    """The budget is met at the mean number of tokens; other prompts are pruned by the recipe's ratios."""
    totals = [sum(_layout(model, encode([parts]))) for parts in SAMPLES]
    recipe = fit(model, [encode(SAMPLES)], 0.5, mode=mode, progress=False)
    assert recipe.visual_tokens == round(sum(totals) / len(totals))
    sizes = {"hidden_size": 32, "intermediate_size": 72, "kv_size": 16, "q_size": 32}
    sizes |= OTHER_SIZES.get(model.config.model_type, {})
    assert recipe.sizes.costs() == sizes
    dense = visual_macs([0] * 4, recipe.visual_tokens, **sizes)
    saved = 1 - visual_macs(recipe.drop, recipe.visual_tokens, **sizes) / dense
    assert recipe.reduction == pytest.approx(saved)
    # Half, and above it by no more than one token's share of four layers.
    assert 0.5 <= saved < 0.5 + 2 / recipe.visual_tokens
    with torch.no_grad(), FitPrune(recipe)(model) as trace:
        model(**encode(SAMPLES))
    assert trace.visual_tokens.tolist() == totals
    for row, total in enumerate(totals):
        left = [len(layer) / total for layer in kept(trace, row)]
        mean = [1 - sum(recipe.drop[: layer + 1]) / recipe.visual_tokens for layer in range(4)]
        assert left == pytest.approx(mean, abs=1 / total)


def _layout(model, sample):
    image = (sample["input_ids"][0] == model.config.image_token_id).tolist()
    return reference_of(model).visual(sample, image)


def test_fitting_leaves_the_model_as_it_was(model, encode):
    """Also what Qwen2.5-VL remembers of the latest prompt's positions, which a later text would otherwise be given."""
    before = dict(vars(model.model))
    calibration = Calibration(model, [encode(SAMPLES)], progress=False)
    calibration.recipe(0.4)
    assert vars(model.model) == before
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_a_video_is_no_calibration_sample_where_a_model_sees_images_alone():
    model = build("llava_next")
    batch = inputs(processor("llava_next"), SAMPLES[:1]) | {"pixel_values_videos": torch.zeros(1, 2, 3, 24, 24)}
    with pytest.raises(UnsupportedModel, match=r"^this prompt holds a video"):
        embed(model, batch)


def test_the_number_of_visual_tokens_is_not_the_configuration_s_to_say(model):
    assert visual_tokens(model.config) is None
