"""Which images a tower method ranks by: those of its own prompt, read from the layer that the call reads."""

import copy

import pytest
import torch

from baselines.registry import PRUNERS
from fitprune import FitPrune, FitPruneError, Recipe, UnsupportedModel
from tests.support.methods import outcome
from tests.support.models import build, kept, prompt, visual_tokens

pytestmark = pytest.mark.releases

LAYERS = 5
IN_TOWER = ["visionzip", "fastervlm", "vispruner", "prumerge", "hired", "scope", "tome", "divprune"]
DECODER = FitPrune(Recipe([0, 9, 5, 12, 4], 36))


def made(name, model):
    # ToMe saves in steps.
    return PRUNERS[name].for_reduction(model.config, 0.489 if name == "tome" else 0.5, visual_tokens=36)


@pytest.fixture(scope="module")
def model():
    """Three layers in its tower; the configuration reads the last."""
    return build("llama-gqa", LAYERS, seed=2)


@pytest.fixture(scope="module")
def inputs(model):
    return prompt(model, [3, "image", 6, 7], seed=1)


@pytest.fixture(scope="module")
def other(model, inputs):
    """The same prompt about another picture."""
    return inputs | {"pixel_values": prompt(model, [3, "image", 6, 7], seed=5)["pixel_values"]}


def reading(model, layer):
    """A copy whose configuration reads another layer."""
    read = copy.deepcopy(model)
    read.config.vision_feature_layer = layer
    return read


@pytest.mark.parametrize("name", IN_TOWER)
@pytest.mark.parametrize("asked", [-2, [-2]], ids=str)
def test_the_layer_that_the_call_reads_is_the_methods(model, inputs, name, asked):
    pruner = made(name, model)
    expected = outcome(reading(model, -2), inputs, pruner)
    with torch.no_grad(), pruner(model) as trace:
        got = model(**inputs, vision_feature_layer=asked).logits
    assert torch.equal(got, expected[-1])
    assert [kept(trace)] == expected[1][:1]
    with torch.no_grad(), pruner(model):
        plain = model(**inputs).logits
    assert not torch.equal(got, plain)


@pytest.mark.parametrize("name", IN_TOWER)
def test_a_list_of_one_layer_in_the_configuration_is_that_layer(model, inputs, name):
    pruner = made(name, model)
    one, listed = (outcome(reading(model, layer), inputs, pruner) for layer in (-2, [-2]))
    assert one[:-1] == listed[:-1]
    assert torch.equal(one[-1], listed[-1])


@pytest.mark.parametrize("name", ["visionzip", "tome"])
def test_several_layers_are_refused_by_their_own_name(model, inputs, name):
    said = (
        r"vision_feature_layer=\[-2, -1\] reads 2 layers of the vision tower at once; a method that looks into the tower needs"
    )
    with torch.no_grad(), pytest.raises(UnsupportedModel, match=said), made(name, model)(model):
        model(**inputs, vision_feature_layer=[-2, -1])
    with pytest.raises(FitPruneError, match=said):
        PRUNERS[name].for_reduction(reading(model, [-2, -1]).config, 0.5, visual_tokens=36)


def test_a_method_of_the_decoder_reads_whatever_the_model_reads(model, inputs):
    with torch.no_grad(), DECODER(model):
        got = model(**inputs, vision_feature_layer=-2).logits
    assert torch.equal(got, outcome(reading(model, -2), inputs, DECODER)[-1])


def test_cls_among_the_tokens_is_refused_at_the_call_as_well(model, inputs):
    assert visual_tokens(model) == 36
    with torch.no_grad(), made("visionzip", model)(model), pytest.raises(UnsupportedModel, match=r"\[CLS\] is among them"):
        model(**inputs, vision_feature_select_strategy="full")


def embedded(model, inputs):
    """The prompt as embeddings with its picture in them, and where that is. Encodes it."""
    ids = inputs["input_ids"]
    embeds, mask = model.get_input_embeddings()(ids), ids == model.config.image_token_id
    features = torch.cat(list(model.model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output))
    return embeds.masked_scatter(mask[..., None], features), mask


@pytest.mark.parametrize("name", ["visionzip", "fastervlm", "prumerge", "tome"])
def test_embeddings_are_ranked_by_the_picture_that_is_in_them(model, inputs, other, name):
    """Encoded ahead, the right picture last: as ever. Another one last, or in between: refused, never ranked by that."""
    pruner = made(name, model)
    expected = outcome(model, inputs, pruner)
    mask = inputs["input_ids"] == model.config.image_token_id
    with torch.no_grad(), pruner(model, visual_mask=mask) as trace:
        embeds, _ = embedded(model, inputs)
        assert torch.allclose(model(inputs_embeds=embeds).logits, expected[-1], atol=1e-5)
        assert [kept(trace)] == expected[1][:1]
        embeds, _ = embedded(model, inputs)
        embedded(model, other)
        with pytest.raises(UnsupportedModel, match="the images of this prompt are not those that were encoded last"):
            model(inputs_embeds=embeds)
        assert torch.equal(model(**inputs).logits, expected[-1])


@pytest.mark.parametrize("name", IN_TOWER)
def test_a_failed_forward_leaves_no_picture_behind(model, inputs, other, name, monkeypatch):
    pruner = made(name, model)
    expected = outcome(model, inputs, pruner)
    with torch.no_grad(), pruner(model) as trace:
        with monkeypatch.context() as broken:
            broken.setattr(model.model.language_model.layers[2].mlp, "forward", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                model(**other)
        assert torch.equal(model(**inputs).logits, expected[-1])
        assert [kept(trace)] == expected[1][:1]


def test_pictures_that_were_encoded_twice_and_in_another_order(model, inputs, other):
    pruner = made("visionzip", model)
    first, second = outcome(model, inputs, pruner), outcome(model, other, pruner)
    with torch.no_grad(), pruner(model):
        for given in (other, inputs, inputs):
            model.model.get_image_features(pixel_values=given["pixel_values"])
        assert torch.equal(model(**other).logits, second[-1])
        assert torch.equal(model(**inputs).logits, first[-1])
