"""Ways of calling a pruned model that other projects' users know: each is right, or refused in one line before it runs."""

import pytest
import torch

from baselines import FastV, Random
from fitprune import FitPrune, Recipe, UnsupportedModel
from tests.support import families
from tests.support.models import IMAGE, batch, build, new_tokens, prompt
from tests.support.releases import cache_of, with_cache

pytestmark = pytest.mark.releases
PRUNERS = [FitPrune(Recipe([9, 0, 12], 36)), FastV.for_reduction(build("llama", 3).config, 0.3), Random(ratio=0.5)]


@pytest.fixture(scope="module")
def model():
    return build("llama", 3)


@pytest.fixture
def inputs(model):
    return prompt(model, [3, "image", 6], seed=1)


def one_line(error):
    assert "\n" not in str(error.value)
    assert 20 < len(str(error.value)) < 300


def merged(model, inputs):
    """Embeddings that hold their images already."""
    with torch.no_grad():
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        image = model.model.get_image_features(inputs["pixel_values"]).pooler_output
        embeds[inputs["input_ids"] == IMAGE] = torch.cat(list(image)).flatten(0, -2)
    return {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]}


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_prompt_lookup_is_refused_before_anything_runs(model, inputs, pruner):
    with torch.no_grad(), pruner(model) as trace, pytest.raises(UnsupportedModel, match="prompt_lookup_num_tokens") as error:
        new_tokens(model, inputs, prompt_lookup_num_tokens=3)
    one_line(error)
    assert trace.kept == []


def test_an_assistant_is_refused_before_anything_runs(model, inputs):
    with torch.no_grad(), PRUNERS[0](model) as trace, pytest.raises(UnsupportedModel, match="assistant_model") as error:
        new_tokens(model, inputs, assistant_model=build("llama", 1, seed=5))
    one_line(error)
    assert trace.kept == []


def test_prompt_lookup_on_text_alone_is_untouched(model):
    text = prompt(model, [12], seed=1)
    with torch.no_grad():
        expected = new_tokens(model, text, prompt_lookup_num_tokens=3)
        with PRUNERS[0](model):
            assert torch.equal(new_tokens(model, text, prompt_lookup_num_tokens=3), expected)


def test_prompt_lookup_after_the_context_works_again(model, inputs):
    with torch.no_grad():
        with PRUNERS[0](model):
            pass
        assert torch.equal(new_tokens(model, inputs, prompt_lookup_num_tokens=3), new_tokens(model, inputs))


NAMING_ROWS = {
    "labels": lambda inputs: {"labels": inputs["input_ids"]},
    "indices": lambda inputs: {"logits_to_keep": torch.tensor([2, 5])},
    "a list of indices": lambda inputs: {"logits_to_keep": [2, 5]},
    "a slice": lambda inputs: {"logits_to_keep": slice(2, 5)},
}


@pytest.mark.parametrize("given", NAMING_ROWS)
@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_arguments_that_name_rows_of_the_prompt_are_refused(model, inputs, pruner, given):
    named = NAMING_ROWS[given](inputs)
    with torch.no_grad(), pruner(model), pytest.raises(UnsupportedModel, match=next(iter(named))) as error:
        model(**inputs, **named)
    one_line(error)


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("given", NAMING_ROWS)
def test_in_every_family_too(family, given):
    model = families.build(family, 3, seed=7)
    inputs = families.inputs(families.processor(family), [["w1 w2", (40, 20), "w3 w4 w5"]])
    named = NAMING_ROWS[given](inputs)
    with torch.no_grad(), PRUNERS[2](model) as trace, pytest.raises(UnsupportedModel, match=next(iter(named))):
        model(**inputs, **named)
    assert trace.kept == []


@pytest.mark.parametrize("given", NAMING_ROWS)
def test_beside_a_visual_mask_too(model, inputs, given):
    named, embeds = NAMING_ROWS[given](inputs), merged(model, inputs)
    with torch.no_grad(), PRUNERS[0](model, visual_mask=inputs["input_ids"] == IMAGE):
        with pytest.raises(UnsupportedModel, match=next(iter(named))) as error:
            model(**embeds, **named)
        one_line(error)
    with torch.no_grad(), PRUNERS[0](model, visual_mask=torch.zeros_like(inputs["input_ids"]).bool()):
        assert model(**embeds, labels=inputs["input_ids"]).loss > 0


def test_the_last_rows_may_be_asked_for_by_their_number(model, inputs):
    with torch.no_grad(), PRUNERS[0](model):
        last, whole = model(**inputs, logits_to_keep=2).logits, model(**inputs).logits
    torch.testing.assert_close(last, whole[:, -2:], rtol=1e-5, atol=1e-4)


def test_a_loss_on_text_alone_is_untouched(model):
    text = prompt(model, [12], seed=1)
    with torch.no_grad():
        expected = model(**text, labels=text["input_ids"]).loss
        with PRUNERS[0](model):
            assert model(**text, labels=text["input_ids"]).loss == expected


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_embeddings_that_hold_their_image_are_never_dense_in_silence(model, inputs, pruner):
    with torch.no_grad(), pruner(model), pytest.raises(UnsupportedModel, match="visual_mask") as error:
        model(**merged(model, inputs))
    one_line(error)


@pytest.mark.parametrize("beams", [1, 2])
def test_embeddings_with_a_visual_mask_are_pruned_as_the_prompt_is(model, beams):
    """A left-padded batch of two."""
    inputs = batch([prompt(model, [3, "image", 6], seed=1), prompt(model, [1, "image", 2], seed=2)])
    mask = inputs["input_ids"] == IMAGE
    with torch.no_grad():
        with PRUNERS[0](model) as expected:
            told = new_tokens(model, inputs, num_beams=beams)
        with PRUNERS[0](model, visual_mask=mask) as trace:
            said = model.generate(**merged(model, inputs), max_new_tokens=6, do_sample=False, num_beams=beams)
    assert torch.equal(said, told)
    assert all(torch.equal(own, other) for own, other in zip(trace.kept, expected.kept, strict=True))
    assert trace.kept[2].shape[1] == 15


def test_a_visual_mask_of_another_shape_is_refused(model, inputs):
    given = merged(model, inputs)
    pruned = PRUNERS[0](model, visual_mask=torch.ones(1, 3, dtype=torch.bool))
    with torch.no_grad(), pruned, pytest.raises(UnsupportedModel, match="shape") as error:
        model(**given)
    one_line(error)


def test_text_embeddings_are_untouched_once_it_is_said_that_they_are_text(model):
    text = prompt(model, [12], seed=1)
    embeds = model.get_input_embeddings()(text["input_ids"])
    with torch.no_grad():
        expected = model(inputs_embeds=embeds).logits
        with PRUNERS[0](model, visual_mask=torch.zeros(1, 12, dtype=torch.bool)):
            assert torch.equal(model(inputs_embeds=embeds).logits, expected)


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_a_pruned_prompt_is_not_continued_after_the_context(model, inputs, pruner):
    with torch.no_grad():
        with pruner(model):
            output = model(**inputs, use_cache=True)
        with pytest.raises(UnsupportedModel, match="inside the context") as error:
            model(input_ids=output.logits[:, -1:].argmax(-1), **with_cache(model, cache_of(output)))
    one_line(error)


def test_a_text_prompt_may_be_continued_after_the_context(model):
    text = prompt(model, [12], seed=1)
    with torch.no_grad():
        expected = new_tokens(model, text, count=1)
        with PRUNERS[0](model):
            output = model(**text, use_cache=True)
        token = output.logits[:, -1:].argmax(-1)
        assert torch.equal(token, expected)
        after = model(input_ids=token, **with_cache(model, cache_of(output))).logits
        whole = model(input_ids=torch.cat([text["input_ids"], token], 1)).logits[:, -1:]
    torch.testing.assert_close(after, whole, rtol=1e-5, atol=1e-4)


def test_an_error_inside_the_context_closes_its_caches_too(model, inputs):
    found = []

    def fails():
        with PRUNERS[2](model):
            found.append(cache_of(model(**inputs, use_cache=True)))
            raise RuntimeError("from outside")

    with torch.no_grad():
        with pytest.raises(RuntimeError, match="from outside"):
            fails()
        with pytest.raises(UnsupportedModel, match="inside the context"):
            model(input_ids=torch.tensor([[5]]), **with_cache(model, found[0]))
