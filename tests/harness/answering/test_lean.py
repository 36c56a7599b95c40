"""What greedy answers do not depend on is left out, and nothing else changes."""

import contextlib
import copy

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn
from transformers import DynamicCache

from baselines.between_layers.fastv import FastV
from baselines.controls.random_pruning import Random
from fitprune import FitPrune, Recipe
from fitprune.models.parts import model_parts
from harness.answering.lean import ROOM, lean, roomy_cache
from tests.support import families
from tests.support.models import batch, build, new_tokens, prompt
from tests.support.pruners import Looking
from tests.support.releases import cache_of

pytestmark = pytest.mark.releases
PRUNERS = {
    "dense": None,
    "before the decoder": Random(0.5),
    "between layers": FastV(k=1, r=0.4),
    "after the last layer's attention": FitPrune(Recipe([9, 0, 12], 36)),
}
SAMPLES = [["w1 w2", (30, 20), "w3 w4 w5 w6"], ["w5 w6 w7"], ["w1", (40, 40), "w2"]]


@pytest.fixture(scope="module", params=["llava", *families.FAMILIES])
def case(request):
    """A family's model, and prompts of several lengths, one without an image."""
    if request.param == "llava":
        model = build()
        return model, batch([prompt(model, [3, "image", 5]), prompt(model, [4]), prompt(model, ["image", 4], seed=1)])
    return families.build(request.param, seed=3), families.inputs(families.processor(request.param), SAMPLES)


def generated(model, inputs, pruner=None, leave_out=True, count=5):
    """The answers, what the first step says, and what stands in the cache by layer."""
    with contextlib.ExitStack() as inside:
        own = inside.enter_context(lean(model, pruner)) if leave_out else {}
        if pruner is not None:
            inside.enter_context(pruner(model))
        out = model.generate(
            **inputs, **own, max_new_tokens=count, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    return out.sequences, out.logits[0], [(layer.keys, layer.values) for layer in cache_of(out).layers]


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS)
def test_answers_and_caches_stay_as_they_are(case, pruner, attention):
    model, inputs = case
    try:
        model.set_attn_implementation(attention)
        tokens, logits, cache = generated(model, inputs, pruner, leave_out=False)
        left_tokens, left_logits, left_cache = generated(model, inputs, pruner)
    finally:
        model.set_attn_implementation("sdpa")
    assert left_tokens.tolist() == tokens.tolist()
    # One row alone is another sum of products in another order.
    torch.testing.assert_close(left_logits, logits, rtol=1e-4, atol=1e-5)
    for (keys, values), (left_keys, left_values) in zip(cache, left_cache, strict=True):
        # Of what is held before the four decoded tokens, nothing depends on the last layer's rows.
        assert torch.equal(left_keys[:, :, :-4], keys[:, :, :-4])
        assert torch.equal(left_values[:, :, :-4], values[:, :, :-4])


def test_one_row_goes_through_the_last_feed_forward_network():
    model = build()
    inputs = batch([prompt(model, [3, "image", 5]), prompt(model, ["image", 4], seed=1)])
    rows = []
    layers = model_parts(model).layers
    for layer in (layers[-2], layers[-1]):
        layer.mlp.register_forward_pre_hook(lambda module, args: rows.append(args[0].shape[1]))
    whole = inputs["input_ids"].shape[1]
    generated(model, inputs, count=2)
    assert rows == [whole, 1, 1, 1]
    rows.clear()
    generated(model, inputs, count=2, leave_out=False)
    assert rows == [whole, whole, 1, 1]


def test_all_rows_stay_with_deepstack_with_attention_of_another_kind_and_where_accelerate_places_the_layer():
    deep, flash, placed = families.build("qwen3_vl", seed=3), build(), build()
    model_parts(flash).layers[-1].self_attn.config._attn_implementation = "flash_attention_2"
    add_hook_to_module(model_parts(placed).layers[-1], AlignDevicesHook("cpu", io_same_device=True))
    for model in (deep, flash, placed):
        layer = model_parts(model).layers[-1]
        before = vars(layer).get("forward")
        with lean(model, None):
            assert vars(layer).get("forward") is before


class Counted:
    """Which of a tower's layers have run."""

    def __init__(self, model):
        self.ran = []
        for index, layer in enumerate(model.model.vision_tower.encoder.layers):
            layer.mlp.register_forward_hook(lambda *_, index=index: self.ran.append(index))


def test_layers_of_the_tower_that_nobody_reads_do_not_run():
    model = build()
    model.config.vision_feature_layer = model.model.config.vision_feature_layer = -2
    counted, inputs = Counted(model), prompt(model, [3, "image", 5])
    with torch.no_grad():
        features = model.get_image_features(inputs["pixel_values"]).pooler_output
        assert counted.ran == [0, 1]
        counted.ran.clear()
        with lean(model, None):
            assert torch.equal(model.get_image_features(inputs["pixel_values"]).pooler_output[0], features[0])
        assert counted.ran == [0]
        # FastV reads none of them, a method that looks at the last one's attention needs both.
        for pruner, ran in ((FastV(k=1, r=0.4), [0]), (Looking(lambda tokens: None), [0, 1])):
            counted.ran.clear()
            generated(model, inputs, pruner)
            assert counted.ran == ran
        counted.ran.clear()
        assert new_tokens(model, inputs).tolist() == generated(model, inputs, count=6)[0][:, -6:].tolist()


def test_nothing_is_left_on_the_model_also_after_an_error():
    model = build()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    configs = [layer.self_attn.config for layer in model_parts(model).layers]
    with pytest.raises(KeyError), lean(model, None), Random(0.5)(model):
        raise KeyError
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert all(layer.self_attn.config is own for layer, own in zip(model_parts(model).layers, configs, strict=True))
    assert not any(layer.self_attn.o_proj._forward_pre_hooks for layer in model_parts(model).layers)


def test_a_model_of_another_form_generates_by_itself():
    with lean(nn.Linear(2, 2), None) as own:
        assert own == {}


@pytest.fixture
def caches():
    """A cache with room and a plain one, filled alike: a prompt of 7 tokens, then more tokens than there is room for."""
    config = model_parts(build(layers=1)).text_config
    pair = roomy_cache(config), DynamicCache(config=config)
    torch.manual_seed(0)
    for length in (7, *[1] * (ROOM + 3), 4):
        states = torch.randn(2, 3, 4, length, 8)
        held = [cache.update(*states, 0) for cache in pair]
        assert torch.equal(held[0][0], held[1][0])
        assert torch.equal(held[0][1], held[1][1])
    return pair


CHANGES = {
    "reordered": lambda cache: cache.reorder_cache(torch.tensor([1, 0, 2])),
    "cropped": lambda cache: cache.crop(-3),
    "selected": lambda cache: cache.batch_select_indices(torch.tensor([2, 1])),
    "repeated": lambda cache: cache.batch_repeat_interleave(2),
    "copied": lambda cache: None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_cache_with_room_goes_through_what_is_done_to_caches(caches, change):
    torch.manual_seed(1)
    for cache in caches:
        CHANGES[change](cache)
    copies = copy.deepcopy(caches)
    for _ in range(2):
        states = torch.randn(2, caches[1].layers[0].keys.shape[0], 4, 1, 8)
        for pair in (caches, copies) if change == "copied" else (caches,):
            (keys, values), (plain_keys, plain_values) = (cache.update(*states, 0) for cache in pair)
            assert torch.equal(keys, plain_keys)
            assert torch.equal(values, plain_values)
    if change == "copied":  # what goes into one does not come into the other
        copies[0].update(*torch.zeros(2, 3, 4, 1, 8), 0)
        assert torch.equal(caches[0].layers[0].keys, caches[1].layers[0].keys)
