"""Models in several types at once: autocast, half a tower under a float32 decoder, queries too large for float16."""

import contextlib
import functools
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from fitprune import Pruner, fit
from fitprune.models.execution import run_module
from tests.support import families
from tests.support.methods import ON_IMAGES, method, one_a_kind
from tests.support.models import batch, build, new_tokens, prompt
from tests.support.no_nan import NoNan

pytestmark = pytest.mark.releases
LAYERS = 5
HALF = torch.bfloat16
TILED = ("llava_next", "llava_onevision")
TEXTS = [["w1 w2", (40, 20), "w3 w4 w5"], ["w6", (44, 48), "w7", (20, 60), "w8 w9"], ["w1 w5 w6"]]

# Their counts follow from what the tower makes of a picture.
BY_CONTENT = {"prumerge", "tome"}


def autocast():
    return torch.autocast("cpu", HALF)


def pieces(model):
    """The model's tower with its projector, and its decoder with its head."""
    return [model.model.vision_tower, model.model.multi_modal_projector], [model.model.language_model, model.lm_head]


def half_tower(model):
    for part in pieces(model)[0]:
        part.to(HALF)
    return contextlib.nullcontext()


def half_decoder(model):
    for part in pieces(model)[1]:
        part.to(HALF)
    return contextlib.nullcontext()


def half_model(model):
    model.to(HALF)
    return contextlib.nullcontext()


WAYS = {"autocast": lambda model: autocast(), "tower": half_tower, "decoder": half_decoder, "float32 pixels": half_model}


def case(family):
    if family == "llava":
        model = build("llama-gqa", LAYERS, seed=2)
        parts = [[3, "image", 5], ["image", 2, "image", 7], [9]]
        return model, batch([prompt(model, own, seed) for seed, own in enumerate(parts)])
    return families.build(family, LAYERS, seed=1), families.inputs(families.processor(family), TEXTS)


def counts(model, inputs, pruner):
    """Visual tokens of the prompts, and those after each layer, in a forward; the same forward must also generate."""
    with torch.no_grad(), pruner(model) as trace:
        new_tokens(model, inputs, 2)
        assert model(**inputs).logits.isfinite().all()
        return trace.visual_tokens.tolist(), [layer.tolist() for layer in trace.visual_out]


@functools.cache
def whole(family, name):
    """The method, and its counts on the model of one type."""
    model, inputs = case(family)
    pruner = method(name, model)
    return pruner, counts(model, inputs, pruner)


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ON_IMAGES)
@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_every_method_keeps_as_many(family, name, way):
    model, inputs = case(family)
    pruner, expected = whole(family, name)
    with WAYS[way](model):
        got = counts(model, inputs, pruner)
    assert got[0] == expected[0]
    if name not in BY_CONTENT:
        assert got[1] == expected[1]


@pytest.mark.parametrize("family", TILED)
@pytest.mark.parametrize("way", WAYS)
def test_newlines_are_recognised(family, way):
    model, inputs = case(family)
    expected = counts(model, inputs, method("fastv", model))
    with WAYS[way](model):
        assert counts(model, inputs, method("fastv", model)) == expected


@pytest.mark.parametrize("family", ["llava", *families.FAMILIES])
def test_autocast_may_begin_inside_the_context_or_around_it(family):
    model, inputs = case(family)
    pruner, logits = method("fitprune", model), []
    with torch.no_grad():
        with autocast(), pruner(model) as trace:
            logits.append(model(**inputs).logits)
            around = [kept.tolist() for kept in trace.kept]
        with pruner(model) as trace, autocast():
            logits.append(model(**inputs).logits)
            inside = [kept.tolist() for kept in trace.kept]
    assert inside == around
    assert torch.equal(*logits)


@dataclass
class Looking(Pruner):
    """Notes in which precision its own products are, and those of the model's modules."""

    name: ClassVar[str] = "looking"
    vision: ClassVar[bool] = True
    seen: ClassVar[list] = []

    def observed_layers(self, layers):
        return [1]

    def before_layer(self, layer, tokens):
        if layer == 0:
            own = tokens.features @ tokens.features.transpose(1, 2)
            self.seen += [own.dtype, tokens.vision.project(tokens.vision.features).dtype]
            self.seen += [run_module(tokens.parts.layers[0].mlp, tokens.hidden).dtype, tokens.upcoming().query.dtype]
            self.seen += [(tokens.features @ tokens.features.transpose(1, 2)).dtype]

    def after_attention(self, layer, tokens, attention):
        self.seen.append((tokens.hidden @ tokens.hidden.transpose(1, 2)).dtype)


@torch.no_grad()
def test_scores_are_not_rounded_by_autocast_and_modules_run_as_in_the_model():
    model, inputs = case("llava")
    Looking.seen.clear()
    with autocast(), Looking()(model):
        model(**inputs)
        assert torch.is_autocast_enabled("cpu")
    own, projected, fed, ahead, again, after = Looking.seen
    assert own is again is after is torch.float32
    assert projected is fed is HALF
    assert ahead in (HALF, torch.float32)  # the rotary embedding widens it again


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_a_fit_under_autocast(family):
    model, inputs = case(family)
    inputs = prompt(model, [3, "image", 5], 1)
    if family != "llava":
        inputs = families.inputs(families.processor(family), TEXTS[:2])
    expected = fit(model, [inputs], 0.5, progress=False)
    with autocast():
        recipe = fit(model, [inputs], 0.5, progress=False)
    assert recipe.visual_tokens == expected.visual_tokens
    assert recipe.reduction == pytest.approx(expected.reduction, abs=0.05)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(HALF, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", one_a_kind())
def test_products_beyond_float16_give_no_nan_where_sdpa_gives_none(name, dtype):
    model = build("llama-gqa", LAYERS, seed=2)
    inputs = batch([prompt(model, parts, seed) for seed, parts in enumerate([[3, "image", 5], ["image", 2, "image", 7]])])
    for module, weight in model.named_parameters():
        if "q_proj.weight" in module or "k_proj.weight" in module:
            weight.mul_(100)
    model.to(dtype)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    assert model(**inputs).logits.isfinite().all()
    with method(name, model)(model) as trace, NoNan():
        assert model(**inputs).logits.isfinite().all()
    assert name == "dense" or int(trace.visual_out[-1][0]) < 36
