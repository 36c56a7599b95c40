"""Ways of calling a model that cannot be pruned correctly are refused in one line, never run unpruned in silence."""

import pytest
import torch
from torch import nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from fitprune import FitPrune, FitPruneError, Recipe, UnsupportedModel
from fitprune.errors import RecipeError
from tests.support.models import build, kept, new_tokens, prompt
from tests.support.releases import cache_of, with_cache

pytestmark = pytest.mark.releases
RECIPE = Recipe([9, 0, 12], 36)


@pytest.fixture(scope="module")
def model():
    return build("llama", 3)


@pytest.fixture
def inputs(model):
    return prompt(model, [3, "image", 5], seed=1)


@pytest.fixture
def refused():
    def check(error, kind=UnsupportedModel):
        assert issubclass(error.type, kind)
        assert issubclass(error.type, FitPruneError)
        message = str(error.value)
        assert "\n" not in message
        assert 20 < len(message) < 300

    return check


@pytest.mark.parametrize("size", [4, 20, 39, 43])
def test_chunked_prefill_in_generate(model, inputs, size):
    """Also where the first chunk holds the whole image: it would be pruned as if the rest of the prompt were not there."""
    with torch.no_grad(), FitPrune(RECIPE)(model) as trace:
        with pytest.raises(UnsupportedModel, match=rf"prefill_chunk_size={size} splits a prompt of 44 tokens"):
            new_tokens(model, inputs, prefill_chunk_size=size)
        assert trace.kept == []


def test_text_in_chunks_is_untouched(model):
    """A text prompt, and the text of a later turn on a pruned image."""
    text = prompt(model, [9], seed=1)

    def later(first, **options):
        """The answer to a second turn of text."""
        out = model.generate(**first, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
        ids = torch.cat([out.sequences, text["input_ids"]], 1)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **with_cache(model, cache_of(out))}
        return new_tokens(model, given, **options)

    with torch.no_grad():
        expected = new_tokens(model, text, prefill_chunk_size=4)
        dense = later(text, prefill_chunk_size=4)
        repeats = not torch.equal(dense, later(text))
        with FitPrune(RECIPE)(model):
            assert torch.equal(new_tokens(model, text, prefill_chunk_size=4), expected)
            assert torch.equal(later(text, prefill_chunk_size=4), dense)
            first = prompt(model, [3, "image", 5], seed=1)
            if repeats:  # the oldest release feeds the whole conversation again, images too
                with pytest.raises(UnsupportedModel, match="an image or video comes in"):
                    later(first, prefill_chunk_size=4)
            else:
                assert torch.equal(later(first, prefill_chunk_size=4), later(first))


def test_one_chunk_that_holds_all_is_a_prefill_like_any_other(model, inputs):
    plain = new_tokens(model, inputs)
    if not torch.equal(new_tokens(model, inputs, prefill_chunk_size=64), plain):
        pytest.skip("this release of transformers loses the images of a prompt in chunks, without a pruner, too")
    with torch.no_grad(), FitPrune(RECIPE)(model) as trace:
        expected = new_tokens(model, inputs)
        before = kept(trace)
        assert torch.equal(new_tokens(model, inputs, prefill_chunk_size=64), expected)
        assert kept(trace) == before


def test_a_prompt_in_two_pieces(model, inputs, refused):
    """Cut before the image; cut behind it, the second piece is a later turn of text."""
    ids = inputs["input_ids"]
    cache = DynamicCache()
    with torch.no_grad(), FitPrune(RECIPE)(model):
        model(input_ids=ids[:, :2], **with_cache(model, cache))
        with pytest.raises(FitPruneError) as error:
            model(input_ids=ids[:, 2:], pixel_values=inputs["pixel_values"], **with_cache(model, cache))
    refused(error)


def test_a_second_turn_with_an_image(model, inputs, refused):
    cache = DynamicCache()
    with torch.no_grad(), FitPrune(RECIPE)(model):
        model(**inputs, **with_cache(model, cache))
        with pytest.raises(FitPruneError) as error:
            model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"], **with_cache(model, cache))
    refused(error)


def test_a_text_chat_may_go_on_in_pieces(model):
    """No image, nothing to prune, nothing to refuse."""
    first, second = prompt(model, [9], seed=1)["input_ids"], prompt(model, [4], seed=2)["input_ids"]
    with torch.no_grad():
        cache = DynamicCache()
        model(input_ids=first, **with_cache(model, cache))
        plain = model(input_ids=second, **with_cache(model, cache)).logits
        with FitPrune(RECIPE)(model):
            cache = DynamicCache()
            model(input_ids=first, **with_cache(model, cache))
            assert torch.equal(model(input_ids=second, **with_cache(model, cache)).logits, plain)


def test_a_cache_filled_outside(model, inputs, refused):
    cache = DynamicCache()
    with torch.no_grad():
        model(**inputs, **with_cache(model, cache))
        with FitPrune(RECIPE)(model), pytest.raises(FitPruneError) as error:
            model(input_ids=torch.tensor([[5]]), **with_cache(model, cache))
    refused(error)


def test_a_static_cache_in_generate(model, inputs, refused):
    with torch.no_grad(), FitPrune(RECIPE)(model), pytest.raises(FitPruneError) as error:
        new_tokens(model, inputs, cache_implementation="static", disable_compile=True)
    refused(error)


def test_a_static_cache_in_a_forward(model, inputs, refused):
    cache = StaticCache(config=model.config.text_config, max_cache_len=64)
    with torch.no_grad(), FitPrune(RECIPE)(model), pytest.raises(FitPruneError) as error:
        model(**inputs, **with_cache(model, cache))
    refused(error)


def test_a_prepared_mask(model, inputs, refused):
    length = inputs["input_ids"].shape[1]
    mask = torch.ones(1, 1, length, length).tril().bool()
    with torch.no_grad(), FitPrune(RECIPE)(model), pytest.raises(FitPruneError) as error:
        model(**{**inputs, "attention_mask": mask})
    refused(error)


def test_the_decoder_alone(model, refused):
    with torch.no_grad(), FitPrune(RECIPE)(model), pytest.raises(FitPruneError) as error:
        model.model.language_model(input_ids=torch.tensor([[4, 5, 6]]))
    refused(error)


def test_a_prompt_longer_than_a_sliding_window(refused):
    model = build("mistral", 3, sliding_window=40)
    inputs = prompt(model, [3, "image", 5], seed=1)
    with torch.no_grad(), FitPrune(RECIPE)(model), pytest.raises(FitPruneError, match="40") as error:
        model(**inputs)
    refused(error)


def test_generation_that_grows_past_a_sliding_window(refused):
    model = build("mistral", 3, sliding_window=46)
    inputs = prompt(model, [3, "image", 5], seed=1)
    with torch.no_grad(), FitPrune(RECIPE)(model):
        new_tokens(model, inputs, 3)
        with pytest.raises(FitPruneError, match="46") as error:
            new_tokens(model, inputs, 9)
    refused(error)


def test_a_sliding_window_that_is_long_enough_changes_nothing():
    windowed, plain = build("mistral", 3, sliding_window=64), build("mistral", 3)
    inputs = prompt(plain, [3, "image", 5], seed=1)
    with torch.no_grad(), FitPrune(RECIPE)(windowed), FitPrune(RECIPE)(plain):
        assert torch.equal(new_tokens(windowed, inputs), new_tokens(plain, inputs))


def test_a_text_model(refused):
    config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, vocab_size=64)
    with pytest.raises(FitPruneError) as error, FitPrune(RECIPE)(LlamaForCausalLM(config)):
        pass
    # A recipe knows that sizes differ, or the anatomy that there is no image; either is a fair answer.
    refused(error, FitPruneError)


def test_a_layer_of_unknown_form(refused):
    model = build("llama", 3)

    class ScaledDecoderLayer(type(model.model.language_model.layers[0])):
        pass

    model.model.language_model.layers[1].__class__ = ScaledDecoderLayer
    with pytest.raises(FitPruneError, match="ScaledDecoderLayer") as error, FitPrune(RECIPE)(model):
        pass
    refused(error)


def test_a_module_that_is_no_model(refused):
    with pytest.raises(FitPruneError) as error, FitPrune(RECIPE)(nn.Linear(2, 2)):
        pass
    refused(error, FitPruneError)


def test_a_recipe_with_the_wrong_number_of_layers(model, refused):
    with pytest.raises(FitPruneError, match="4 layers") as error, FitPrune(Recipe([1, 2, 3, 4], 36))(model):
        pass
    refused(error, RecipeError)


def test_a_recipe_of_another_model(model, refused):
    other = build("llama", 3, hidden=64)
    recipe = Recipe([1, 2, 3], 36).for_model(other.config)
    with pytest.raises(FitPruneError, match="64") as error, FitPrune(recipe)(model):
        pass
    refused(error, RecipeError)


def test_after_a_refusal_the_model_works(model, inputs):
    with torch.no_grad():
        plain = model(**inputs).logits
        with FitPrune(RECIPE)(model) as trace:
            pruned = model(**inputs).logits
            before = kept(trace)
            with pytest.raises(UnsupportedModel):
                model.model.language_model(input_ids=torch.tensor([[4, 5, 6]]))
            assert torch.equal(model(**inputs).logits, pruned)
            assert kept(trace) == before
        assert torch.equal(model(**inputs).logits, plain)
