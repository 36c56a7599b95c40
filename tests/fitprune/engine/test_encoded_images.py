"""Which images a tower method ranks by: those of its own prompt, read from the layer that the call reads."""

import contextlib
import copy

import pytest
import torch

from baselines.registry import PRUNERS
from fitprune import FitPrune, FitPruneError, Recipe, UnsupportedModel
from fitprune.engine.image_cache import remembering_images
from fitprune.models.images import same_images
from tests.support import families
from tests.support.methods import outcome
from tests.support.models import batch, build, kept, new_tokens, prompt, visual_tokens

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


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("name", [*IN_TOWER, "fitprune"])
@pytest.mark.parametrize("asked", [-2, [-2]], ids=str)
@pytest.mark.parametrize("beams", [1, 2])
def test_generate_reads_the_layer_that_it_is_given(model, inputs, other, name, asked, beams):
    """`generate` hands the layer on to its prefill, whatever it repeats or leaves out in later steps."""
    both, pruner, read = batch([inputs, other]), DECODER if name == "fitprune" else made(name, model), reading(model, -2)

    def answered(by, **options):
        with pruner(by) as trace:
            out = by.generate(
                **both, **options, max_new_tokens=4, num_beams=beams, output_logits=True, return_dict_in_generate=True
            )
        return out.sequences, out.logits[0], [kept(trace, row) for row in range(2 * beams)]

    expected, got, plain = answered(read), answered(model, vision_feature_layer=asked), answered(model)
    assert all(torch.equal(*pair) for pair in zip(got[:2], expected[:2], strict=True))
    assert got[2] == expected[2]
    assert not torch.equal(plain[1], expected[1])


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


@pytest.mark.parametrize("change", ["reversed in place", "reversed in another output", "one of them twice"])
def test_features_in_another_order_are_refused(model, inputs, other, change):
    """On the very object that encoding gave, too."""
    both = batch([inputs, other])
    pruner, rest = made("fastervlm", model), {name: value for name, value in both.items() if name != "pixel_values"}
    with torch.no_grad(), pruner(model):
        output = model.get_image_features(both["pixel_values"], return_dict=True)
        first, second = output.pooler_output
        if change == "reversed in another output":
            output = type(output)(pooler_output=[second, first])
        else:
            output.pooler_output = [second, first] if "reversed" in change else [first, first]
        with pytest.raises(UnsupportedModel, match="the images of this prompt are not those that were encoded last"):
            model(**rest, mm_encoder_outputs={"image": output})


@pytest.mark.parametrize("name", ["fastervlm", "visionzip", "random"])
def test_features_that_were_encoded_ahead_in_their_order(model, inputs, other, name):
    both = batch([inputs, other])
    pruner, rest = made(name, model), {key: value for key, value in both.items() if key != "pixel_values"}
    expected = outcome(model, both, pruner)
    with torch.no_grad(), pruner(model) as trace:
        output = model.get_image_features(both["pixel_values"], return_dict=True)
        given = type(output)(pooler_output=[features.clone() for features in output.pooler_output])
        assert torch.equal(model(**rest, mm_encoder_outputs={"image": given}).logits, expected[-1])
        assert [kept(trace, row) for row in range(2)] == expected[1]


@pytest.mark.parametrize("layout", [[[0, 1], [2]], [[0], [1, 2]], [[0], [1], [2]], [[0, 1, 2]]], ids=str)
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_beams_repeat_the_images_of_each_prompt(layout, copies):
    encoded = tuple(torch.full((2, 3), float(number)) for number in range(3))
    given = [encoded[number].clone() for images in layout for number in images * copies]
    assert same_images(given, encoded)
    if len(given) > 1:
        assert not same_images(given[::-1], encoded)
    assert not same_images(given[:-1], encoded)
    assert not same_images([], encoded)


@pytest.mark.parametrize("pruned", [False, True])
def test_images_that_are_remembered_are_so_under_beams_too(model, inputs, other, pruned):
    both, context = batch([inputs, other]), made("fastervlm", model) if pruned else lambda model: contextlib.nullcontext()
    with context(model):
        expected, greedy = new_tokens(model, both, 4, num_beams=2), new_tokens(model, both, 4)
    with remembering_images(model):
        for options, answer in (({"num_beams": 2}, expected), ({"num_beams": 2}, expected), ({}, greedy)):
            with context(model):
                assert torch.equal(new_tokens(model, both, 4, **options), answer)


@pytest.mark.parametrize("family", ["llava", *families.FAMILIES])
@pytest.mark.parametrize("way", ["forward", "generate", "beams"])
def test_a_prompt_that_is_cut_off_is_named_with_its_numbers(family, way):
    if family == "llava":
        model = build("llama-gqa", LAYERS, seed=2)
        whole = batch([prompt(model, [3, "image", 6, 7], seed=1)])
    else:
        model = families.build(family, LAYERS, seed=1)
        whole = families.inputs(families.processor(family), [["w1 w2", (40, 20), "w3"]])
    visual = whole["input_ids"] == model.config.image_token_id
    last = int(visual[0].nonzero().max())
    cut = {name: value[:, : last - 3] if value.shape == visual.shape else value for name, value in whole.items()}
    beams, tokens = 1 + (way == "beams"), int(visual.sum())
    said = rf"^the prompt has {tokens - 4} image tokens, its \d images have {tokens} features; prepare"
    if family in families.ON_AXES and way != "forward":  # its positions are numbered before its images are encoded
        said = "^the visual tokens of this prompt are not as many as its images and videos need; prepare"
    with torch.no_grad(), DECODER(model):
        for _ in range(2):
            with pytest.raises(UnsupportedModel, match=said):
                model(**cut) if way == "forward" else model.generate(**cut, max_new_tokens=2, do_sample=False, num_beams=beams)
        model(**whole)


def test_pictures_that_were_encoded_twice_and_in_another_order(model, inputs, other):
    pruner = made("visionzip", model)
    first, second = outcome(model, inputs, pruner), outcome(model, other, pruner)
    with torch.no_grad(), pruner(model):
        for given in (other, inputs, inputs):
            model.model.get_image_features(pixel_values=given["pixel_values"])
        assert torch.equal(model(**other).logits, second[-1])
        assert torch.equal(model(**inputs).logits, first[-1])
