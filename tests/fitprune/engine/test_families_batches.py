"""Batches of images of different sizes, draws, loops of one's own, and what is refused, on the families beside LLaVA-1.5."""

import copy

import pytest
import torch
from transformers import AutoModelForImageTextToText, DynamicCache

from baselines.between_layers.fastv import FastV
from baselines.controls.random_pruning import Random
from fitprune import FitPrune, Recipe, UnsupportedModel
from fitprune.engine.masks import causal_mask
from fitprune.models.parts import model_parts
from tests.reference.decoder import reference_of
from tests.support.families import FAMILIES, build, inputs, processor, save
from tests.support.models import kept, new_tokens
from tests.support.releases import cache_of, with_cache

pytestmark = pytest.mark.releases
RECIPE = Recipe([9, 0, 12], 36)
SAMPLES = [
    ["w1 w2", (30, 20), "w3 w4 w5 w6"],
    ["w1", (40, 40), "w2"],
    ["w5 w6 w7"],
    ["w1", (20, 44), "w2", (30, 20), "w3 w4 w5"],
    [(11, 40), "w8 w9"],
]
PRUNERS = {"fitprune": FitPrune(RECIPE), "fastv": FastV(k=1, r=0.4), "random": Random(0.5)}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return build(family, seed=3)


@pytest.fixture(scope="module")
def encode(family):
    """From samples to a batch; LLaVA-OneVision's processor gives one image the tiles that several are denied."""
    made = processor(family)
    return lambda samples: inputs(made, samples)


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS)
def test_a_left_padded_batch_is_one_by_one(model, encode, pruner, attention):
    together = encode(SAMPLES)
    try:
        model.set_attn_implementation(attention)
        with torch.no_grad(), pruner(model) as trace:
            logits = model(**together).logits
            all_kept = [kept(trace, row) for row in range(len(SAMPLES))]
            totals, places = trace.visual_tokens.tolist(), trace.place
            tokens = new_tokens(model, together).tolist()
            assert [kept(trace, row) for row in range(len(SAMPLES))] == all_kept
        for row, parts in enumerate(SAMPLES):
            alone = encode([parts])
            with torch.no_grad(), pruner(model) as trace:
                one = model(**alone).logits
                assert kept(trace) == all_kept[row]
                assert trace.visual_tokens.tolist() == [totals[row]]
                padding = together["input_ids"].shape[1] - alone["input_ids"].shape[1]
                assert (trace.place[0] + padding).tolist() == places[row][: totals[row]].tolist()
                assert new_tokens(model, alone)[0].tolist() == tokens[row]
            assert float((logits[row, -1] - one[0, -1]).abs().max()) < 1e-4
    finally:
        model.set_attn_implementation("sdpa")
    assert totals[2] == 0
    assert len(set(totals)) >= 3


def test_each_sample_is_pruned_by_its_own_count(model, encode):
    with torch.no_grad(), FitPrune(RECIPE)(model) as trace:
        model(**encode(SAMPLES))
    for row, total in enumerate(trace.visual_tokens.tolist()):
        drop = RECIPE.schedule(total) if total else [0, 0, 0]
        assert [total - len(layer) for layer in kept(trace, row)] == [sum(drop[: layer + 1]) for layer in range(3)]


def test_the_cache_holds_per_layer_what_entered_and_what_was_decoded(model, encode):
    sample = encode(SAMPLES[:1])
    with torch.no_grad(), FitPrune(RECIPE)(model) as trace:
        out = model.generate(**sample, max_new_tokens=5, do_sample=False, return_dict_in_generate=True)
    lengths = [cache_of(out).get_seq_length(layer) for layer in range(3)]
    assert lengths == [int(trace.text_tokens + trace.visual_in[layer]) + 4 for layer in range(3)]


def test_beams(model, encode):
    samples = [SAMPLES[0], SAMPLES[2], SAMPLES[1]]
    for pruner in (PRUNERS["fitprune"], PRUNERS["random"]):
        with torch.no_grad(), pruner(model) as trace:
            together = new_tokens(model, encode(samples), 4, num_beams=2)
            all_kept = [kept(trace, row) for row in range(6)]
            for row, parts in enumerate(samples):
                assert torch.equal(new_tokens(model, encode([parts]), 4, num_beams=2)[0], together[row])
                assert kept(trace) == kept(trace, 1) == all_kept[2 * row] == all_kept[2 * row + 1]


def draw(model, batch, pruner, generate=False):
    with torch.no_grad(), pruner(model) as trace:
        if generate:
            new_tokens(model, batch, 1)
        else:
            model(**batch)
    return [kept(trace, row)[0] for row in range(len(batch["input_ids"]))]


def test_a_draw_is_of_the_seed_the_prompt_and_its_images_alone(model, encode):
    together, pruner = encode(SAMPLES), Random(0.5)
    drawn = draw(model, together, pruner)
    assert drawn == draw(model, together, pruner, generate=True)
    assert drawn[::-1] == draw(model, encode(SAMPLES[::-1]), pruner)
    for parts, own in zip(SAMPLES, drawn, strict=True):
        assert draw(model, encode([parts]), pruner) == [own]
    one = encode(SAMPLES[:1])
    others = [
        (one | {"pixel_values": one["pixel_values"].flip(-1)}, pruner),
        (encode([["w1 w2", (30, 20), "w3 w4 w5 w7"]]), pruner),
        (one, Random(0.5, seed=1)),
    ]
    for generate in (False, True):
        variants = [drawn[0], *(draw(model, batch, other, generate)[0] for batch, other in others)]
        assert len({tuple(variant) for variant in variants}) == 4


@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS)
def test_a_decoding_loop_of_ones_own(model, encode, pruner):
    """A DynamicCache, neither masks nor position ids: the pruner supplies the unpruned positions."""
    sample = encode(SAMPLES[3:4])
    step = {name: value for name, value in sample.items() if name != "attention_mask"}
    cache, tokens = DynamicCache(config=model.config.text_config), []
    with torch.no_grad(), pruner(model):
        expected = new_tokens(model, sample)[0].tolist()
        for _ in range(6):
            token = model(**step, **with_cache(model, cache)).logits[:, -1].argmax(-1)
            tokens.append(int(token))
            step = {"input_ids": token[:, None]}
    assert tokens == expected


def state(model):
    """All that hangs on the modules of a model: hooks, attributes, and the identity of what they hold."""
    caches = {"rope_deltas"}
    return {
        (name, key): copy.copy(value) if isinstance(value, dict) else id(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key not in caches
    }


def test_the_model_is_as_it_was_on_exit(model, encode):
    batch = encode(SAMPLES)
    with torch.no_grad():
        plain, tokens = model(**batch).logits, new_tokens(model, batch)
        before = state(model)
        for pruner in PRUNERS.values():
            with pytest.raises(ZeroDivisionError), pruner(model):  # noqa: PT012 - the error is to pass through the context
                new_tokens(model, batch)
                raise ZeroDivisionError
        assert state(model) == before
        assert torch.equal(model(**batch).logits, plain)
        assert torch.equal(new_tokens(model, batch), tokens)


def test_a_checkpoint_on_disk_is_pruned_like_the_model_it_was_saved_from(model, family, encode, tmp_path):
    save(family, tmp_path, seed=3)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, local_files_only=True)
    batch = encode(SAMPLES)
    with torch.no_grad(), FitPrune(RECIPE)(loaded) as trace:
        logits = loaded(**batch).logits
    with torch.no_grad(), FitPrune(RECIPE)(model) as expected:
        assert torch.equal(model(**batch).logits, logits)
    assert [kept(trace, row) for row in range(5)] == [kept(expected, row) for row in range(5)]


def test_sliding_layers_of_qwen2_5_vl_work_inside_their_window_and_are_refused_beyond_it():
    plain = build("qwen2_5_vl")
    sample = inputs(processor("qwen2_5_vl"), [SAMPLES[0]])
    length = sample["input_ids"].shape[1]
    for window in (length + 5, length - 1):
        model = build("qwen2_5_vl", use_sliding_window=True, sliding_window=window, max_window_layers=1)
        assert model.config.text_config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
        with torch.no_grad(), FitPrune(RECIPE)(model):
            if window < length:
                with pytest.raises(UnsupportedModel, match=f"window of {window}"):
                    model(**sample)
            else:
                tokens = new_tokens(model, sample, 5)
    with torch.no_grad(), FitPrune(RECIPE)(plain):
        assert torch.equal(new_tokens(plain, sample, 5), tokens)


def test_the_reference_and_the_processor_agree_on_the_layout(model, encode):
    """So that a mistake in the test's own layout of tiles does not go unnoticed where nothing is pruned."""
    for parts in ([(96, 30), "w1"], [(25, 25), "w1"], [(7, 90), "w2"], [(30, 20), (90, 90), "w1"]):
        sample = encode([parts])
        image = (sample["input_ids"][0] == model.config.image_token_id).tolist()
        visual = reference_of(model).visual(sample, image)
        assert all(place for place, own in zip(image, visual, strict=True) if own)


def test_gemma_3_works_inside_its_window_and_is_refused_beyond_it():
    sample = inputs(processor("gemma3"), [SAMPLES[0]])
    length = sample["input_ids"].shape[1]
    plain, near, far = (build("gemma3", sliding_window=window) for window in (512, length + 5, length - 1))
    with torch.no_grad(), FitPrune(RECIPE)(plain):
        tokens = new_tokens(plain, sample, 5)
    with torch.no_grad(), FitPrune(RECIPE)(near):
        assert torch.equal(new_tokens(near, sample, 5), tokens)
        with pytest.raises(UnsupportedModel, match=f"window of {length + 5}"):
            new_tokens(near, sample, 7)
    with torch.no_grad(), FitPrune(RECIPE)(far), pytest.raises(UnsupportedModel, match=f"window of {length - 1}"):
        far(**sample)


def test_gemma_3_goes_by_the_token_types_and_takes_a_prompt_without_them_for_text():
    model = build("gemma3")
    sample = inputs(processor("gemma3"), [SAMPLES[0]])
    causal = {name: value for name, value in sample.items() if name != "token_type_ids"}
    with torch.no_grad(), FitPrune(Recipe([0, 0, 0], 36))(model):
        pruned = model(**sample).logits, model(**causal).logits
    with torch.no_grad():
        assert torch.equal(pruned[0], model(**sample).logits)
        assert torch.equal(pruned[1], model(**causal).logits)
    assert not torch.equal(*pruned)


def test_images_that_see_both_ways_are_refused_where_attention_takes_causal_masks_alone():
    model = build("gemma3")
    model.get_decoder().config._attn_implementation = "flash_attention_2"
    hidden, together = torch.zeros(1, 3, 32), torch.tensor([[0, 1, 1]])
    with pytest.raises(UnsupportedModel, match=r"^the tokens of an image .*'flash_attention_2'.*'sdpa' or 'eager'\.$"):
        causal_mask(model_parts(model), hidden, None, together=together)
