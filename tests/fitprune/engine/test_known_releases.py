"""What the engine relies on in transformers is checked: withheld, it is refused in one line that names the release."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from fitprune import FitPrune, Recipe, UnsupportedModel
from fitprune.engine import patch
from fitprune.models import releases
from tests.support.models import build, kept, new_tokens, prompt
from tests.support.releases import cache_of

pytestmark = pytest.mark.releases
RECIPE = Recipe([9, 0, 12], 36)


@pytest.fixture
def model():
    return build("llama", 3)


@pytest.fixture
def inputs(model):
    return prompt(model, [3, "image", 5], seed=1)


def refused(error):
    message = str(error.value)
    assert "\n" not in message
    assert transformers.__version__ in message
    assert f"{releases.TESTED[0]} to {releases.TESTED[1]}" in message


def withhold(model, name, layer=0):
    """The decoder hands its layer on without one argument."""

    def without(module, args, kwargs):
        return args, {key: value for key, value in kwargs.items() if key != name}

    return model.model.language_model.layers[layer].register_forward_pre_hook(without, with_kwargs=True)


def test_the_cache_arrives_under_the_name_that_this_release_has(model, inputs):
    with torch.no_grad(), FitPrune(RECIPE)(model) as trace:
        output = model(**inputs, use_cache=True)
    cache = cache_of(output)
    assert [cache.get_seq_length(layer) for layer in range(3)] == [44, 35, 35]
    assert [layer.shape[1] for layer in trace.kept] == [27, 27, 15]


def test_a_prompt_whose_cache_does_not_reach_the_layers_is_refused(model, inputs):
    with torch.no_grad(), FitPrune(RECIPE)(model):
        withhold(model, releases.CACHE_ARGUMENT)
        with pytest.raises(UnsupportedModel, match="KV cache") as error:
            model(**inputs, use_cache=True)
    refused(error)


def test_generate_whose_cache_does_not_reach_the_layers_is_refused(model, inputs):
    with torch.no_grad(), FitPrune(RECIPE)(model):
        withhold(model, releases.CACHE_ARGUMENT)
        with pytest.raises(UnsupportedModel, match="KV cache") as error:
            new_tokens(model, inputs)
    refused(error)


def test_a_decoded_token_whose_cache_does_not_reach_the_layers_is_refused(model, inputs):
    with torch.no_grad(), FitPrune(RECIPE)(model):
        output = model(**inputs, use_cache=True)
        withhold(model, releases.CACHE_ARGUMENT)
        with pytest.raises(UnsupportedModel, match="KV cache") as error:
            model(input_ids=output.logits[:, -1:].argmax(-1), **{releases.CACHE_ARGUMENT: cache_of(output)})
    refused(error)


def test_a_decoded_token_is_never_taken_for_a_prompt(model, inputs):
    """A decoder that gets its cache in a way that the engine does not see: `generate` itself says that it is decoding."""
    hidden = []

    def hide(module, args, kwargs):
        kwargs.pop(releases.CACHE_ARGUMENT, None)
        hidden.append(kwargs)
        return args, kwargs

    model.model.language_model.register_forward_pre_hook(hide, with_kwargs=True)
    with torch.no_grad(), FitPrune(RECIPE)(model) as trace, pytest.raises(UnsupportedModel, match="KV cache") as error:
        new_tokens(model, inputs)
    refused(error)
    assert len(hidden) == 2
    assert len(trace.kept) == 3


def test_without_caching_no_cache_is_asked_for(model, inputs):
    with torch.no_grad(), FitPrune(RECIPE)(model) as trace:
        cached, before = new_tokens(model, inputs), kept(trace)
        # Without a cache each step is a prompt of its own, longer by the tokens said so far; the first is the same prompt.
        assert torch.equal(new_tokens(model, inputs, count=1, use_cache=False)[:, 0], cached[:, 0])
    assert kept(trace) == before


def test_layers_without_position_embeddings_are_refused(model, inputs):
    with torch.no_grad(), FitPrune(RECIPE)(model):
        withhold(model, "position_embeddings")
        with pytest.raises(UnsupportedModel, match="position_embeddings") as error:
            model(**inputs)
    refused(error)


def test_attention_that_passes_by_the_interface_is_refused(model, inputs):
    attention = model.model.language_model.layers[0].self_attn

    def own(hidden_states, **kwargs):
        return hidden_states, None

    attention.forward = own
    with torch.no_grad(), FitPrune(RECIPE)(model), pytest.raises(UnsupportedModel, match="attention interface") as error:
        model(**inputs)
    refused(error)


@pytest.mark.parametrize(
    ("forward", "missing"),
    [
        (lambda self, hidden_states, attention_mask=None, position_embeddings=None, memory=None: None, releases.CACHE_ARGUMENT),
        (lambda self, hidden_states, attention_mask=None, cache=None, past_key_values=None: None, "position_embeddings"),
    ],
)
def test_layers_of_another_signature_are_refused_on_entering(model, monkeypatch, forward, missing):
    monkeypatch.setattr(type(model.model.language_model.layers[0]), "forward", forward)
    with pytest.raises(UnsupportedModel, match=missing) as error, FitPrune(RECIPE)(model):
        pass
    refused(error)
    assert not patch._Patch._by_decoder


def test_layers_of_another_build_are_refused_on_entering(model):
    del model.model.language_model.layers[1].post_attention_layernorm
    model.model.language_model.layers[1].norm = nn.Identity()
    with pytest.raises(UnsupportedModel, match="post_attention_layernorm") as error:
        releases.require_known_release(nn.ModuleList([model.model.language_model.layers[1]]))
    refused(error)


def test_generate_that_does_not_say_what_the_prompt_is_is_refused(model, monkeypatch):
    monkeypatch.setattr(releases, "_STEP", {"input_ids": None})
    with pytest.raises(UnsupportedModel, match="generate") as error, FitPrune(RECIPE)(model):
        pass
    refused(error)


@pytest.mark.parametrize("name", ["get_seq_length", "update"])
def test_a_cache_of_another_form_is_refused(model, monkeypatch, name):
    others = {other: None for other in ("get_seq_length", "update") if other != name}
    monkeypatch.setattr(releases, "Cache", SimpleNamespace(**others))
    with pytest.raises(UnsupportedModel, match=name) as error:
        releases.require_known_release(model.model.language_model.layers)
    refused(error)
