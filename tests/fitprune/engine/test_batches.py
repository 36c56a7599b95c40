"""Batches, beams, sampling and loops of one's own give what one sample at a time gives."""

import pytest
import torch
from transformers import DynamicCache

from baselines.controls.random_pruning import Random
from fitprune import FitPrune, Recipe
from tests.reference.decoder import fitprune
from tests.support.models import DECODERS, batch, build, kept, new_tokens, prompt
from tests.support.releases import cache_of, with_cache

pytestmark = pytest.mark.releases
DROP = [9, 0, 12]
SAMPLES = [[3, "image", 5], [1, "image", 2], ["image", 9], [6, "image", 1, "image", 3], [7]]


def alone(model, sample, recipe, count=6):
    with torch.no_grad(), FitPrune(recipe)(model) as trace:
        logits = model(**sample).logits[0, -1]
        return kept(trace), new_tokens(model, sample, count)[0].tolist(), logits


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    return build(request.param, 3, seed=6)


@pytest.fixture(scope="module")
def samples(model):
    return [prompt(model, parts, seed) for seed, parts in enumerate(SAMPLES)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_left_padding(model, samples, attention):
    """Samples of one image, of two, and of none, in one batch."""
    recipe = Recipe(DROP, 36)
    try:
        model.set_attn_implementation(attention)
        together = batch(samples)
        with torch.no_grad(), FitPrune(recipe)(model) as trace:
            logits = model(**together).logits
            tokens = new_tokens(model, together).tolist()
        for row, sample in enumerate(samples):
            one_kept, one_tokens, one_logits = alone(model, sample, recipe)
            assert kept(trace, row) == one_kept
            assert tokens[row] == one_tokens
            assert float((logits[row, -1] - one_logits).abs().max()) < 1e-4
    finally:
        model.set_attn_implementation("sdpa")
    assert trace.visual_tokens.tolist() == [36, 36, 36, 72, 0]
    assert trace.text_tokens.tolist() == [8, 3, 9, 10, 7]
    assert [len(layer) for layer in kept(trace, 3)] == [54, 54, 30]


def test_the_batch_equals_the_reference(model, samples):
    with torch.no_grad(), FitPrune(Recipe(DROP, 36))(model) as trace:
        tokens = new_tokens(model, batch(samples[:3])).tolist()
    for row, sample in enumerate(samples[:3]):
        expected = fitprune(model, sample, DROP, 6)
        assert expected.closest > 1e-4
        assert kept(trace, row) == expected.kept
        assert tokens[row] == expected.tokens


def test_right_padding_in_a_plain_forward(model, samples):
    """Survivors move to the right end as samples differ in length, so the last real token's row is compared."""
    recipe = Recipe(DROP, 36)
    together = batch(samples, "right")
    with torch.no_grad(), FitPrune(recipe)(model) as trace:
        logits = model(**together).logits
    longest = together["input_ids"].shape[1]
    for row, sample in enumerate(samples):
        one_kept, _, one_logits = alone(model, sample, recipe)
        assert kept(trace, row) == one_kept
        padding = longest - sample["input_ids"].shape[1]
        assert float((logits[row, -1 - padding] - one_logits).abs().max()) < 1e-4


def test_an_equal_batch_needs_no_mask(model):
    samples = [prompt(model, [3, "image", 5], seed) for seed in range(3)]
    together = batch(samples)
    del together["attention_mask"]
    with torch.no_grad(), FitPrune(Recipe(DROP, 36))(model) as trace:
        logits = model(**together).logits
    for row, sample in enumerate(samples):
        one_kept, _, one_logits = alone(model, sample, Recipe(DROP, 36))
        assert kept(trace, row) == one_kept
        assert float((logits[row, -1] - one_logits).abs().max()) < 1e-4


def test_beams(model, samples):
    recipe, samples = Recipe(DROP, 36), samples[:3]
    options = {"num_beams": 3, "num_return_sequences": 2}
    with torch.no_grad(), FitPrune(recipe)(model) as trace:
        together = new_tokens(model, batch(samples), **options)
        assert len(trace.kept[-1]) == 9
        for row, sample in enumerate(samples):
            assert torch.equal(new_tokens(model, sample, **options), together[2 * row : 2 * row + 2])
            dense_kept = fitprune(model, sample, DROP).kept
            assert [kept(trace, beam) for beam in range(3)] == [dense_kept] * 3


def test_sampling(model, samples):
    options = {"do_sample": True, "num_return_sequences": 4, "temperature": 3.0}
    with torch.no_grad(), FitPrune(Recipe(DROP, 36))(model) as trace:
        first = new_tokens(model, batch(samples[:2]), **options)
        second = new_tokens(model, batch(samples[:2]), **options)
    assert first.shape == (8, 6)
    assert torch.equal(first, second)
    assert len({tuple(row) for row in first.tolist()}) > 2
    assert len({str(kept(trace, row)) for row in range(4)}) == 1


def test_without_a_cache(model, samples):
    together = batch(samples[:3])
    with torch.no_grad(), FitPrune(Recipe(DROP, 36))(model) as trace:
        cached, cached_kept = model(**together), trace.kept
        plain = model(**together, use_cache=False)
    assert cache_of(plain) is None
    assert torch.equal(plain.logits, cached.logits)
    assert all(torch.equal(a, b) for a, b in zip(trace.kept, cached_kept, strict=True))


@pytest.mark.parametrize("pruner", [FitPrune(Recipe(DROP, 36)), Random(0.6)], ids=["fitprune", "random"])
@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no mask"])
def test_a_decoding_loop_of_ones_own(model, pruner, masked):
    """A DynamicCache, no position ids: the pruner supplies the unpruned positions."""
    inputs = prompt(model, [3, "image", 5], seed=1)
    mask = inputs["attention_mask"]
    cache, tokens = DynamicCache(config=model.config.text_config), []
    with torch.no_grad(), pruner(model):
        expected = new_tokens(model, inputs, 6)[0].tolist()
        step = {**inputs} if masked else {name: inputs[name] for name in ("input_ids", "pixel_values")}
        for _ in range(6):
            token = model(**step, **with_cache(model, cache)).logits[:, -1].argmax(-1)
            tokens.append(int(token))
            mask = torch.cat([mask, mask.new_ones(1, 1)], 1)
            step = {"input_ids": token[:, None], **({"attention_mask": mask} if masked else {})}
    assert tokens == expected


def test_the_cache_holds_per_layer_what_entered_and_what_was_decoded(model):
    inputs = prompt(model, [3, "image", 5], seed=1)
    with torch.no_grad(), FitPrune(Recipe(DROP, 36))(model):
        out = model.generate(**inputs, max_new_tokens=5, do_sample=False, return_dict_in_generate=True)
    assert [cache_of(out).get_seq_length(layer) for layer in range(3)] == [44 + 4, 35 + 4, 35 + 4]


def test_a_generated_image_token_is_a_word_like_any_other(model):
    """Nothing keeps a model from writing the image token's id; it is no image."""
    inputs = prompt(model, [3, "image", 5], seed=1)
    with torch.no_grad(), FitPrune(Recipe(DROP, 36))(model) as trace:
        cache = cache_of(model(**inputs, **with_cache(model, DynamicCache())))
        before = kept(trace)
        token = torch.tensor([[model.config.image_token_id]])
        logits = model(input_ids=token, **with_cache(model, cache)).logits
    assert logits.shape[1] == 1
    assert kept(trace) == before


def test_hidden_states_of_every_layer_can_be_asked_for(model):
    inputs = prompt(model, [3, "image", 5], seed=1)
    with torch.no_grad(), FitPrune(Recipe(DROP, 36))(model):
        states = model(**inputs, output_hidden_states=True).hidden_states
    assert [state.shape[1] for state in states] == [44, 35, 35, 23]
