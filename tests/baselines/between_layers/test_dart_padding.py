"""DART keeps the same tokens in a padded batch as one by one, whether position ids count the padding or not."""

from types import SimpleNamespace

import pytest
import torch

from baselines import DART
from baselines.shared.rotary import keys_from_zero
from tests.support.models import DECODERS, batch, build, kept, prompt

PARTS = [[3, "image", 5], [2, "image", 61], [4, "image", 1, "image", 7], [9]]
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 256}


def ids_of(mask, counting):
    """Position ids of a padded batch, as callers give them."""
    places = torch.arange(mask.shape[1]).expand_as(mask)
    if counting == "padding":
        return places
    own = (mask.cumsum(1) - 1).clamp(min=0)
    return own if counting == "tokens" else own + torch.tensor([5, 90, 0, 33])[:, None]


@pytest.mark.product(strength=2)
@pytest.mark.parametrize("counting", [None, "padding", "tokens", "from-anywhere"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_a_batch_keeps_what_its_samples_keep_one_by_one(kind, side, counting):
    options = {"rope_parameters": YARN} if kind == "llama" else {}
    model, pruner = build(kind, 4, seed=2, **options), DART(max_num_trunction=16, visual_tokens=36)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]
    together = batch(samples, side)
    if counting is not None:
        together["position_ids"] = ids_of(together["attention_mask"], counting)
    with pruner(model) as trace:
        model(**together)
        found = [kept(trace, row) for row in range(len(samples))]
    for row, sample in enumerate(samples):
        with pruner(model) as trace:
            model(**sample)
        assert found[row] == kept(trace)


def test_keys_of_a_prompt_that_begins_at_zero_are_unchanged_to_the_bit():
    rotary = build("llama", 1, rope_parameters=YARN).model.language_model.rotary_emb
    hidden, key = torch.zeros(2, 6, 32), torch.randn(2, 4, 6, 8)
    valid = torch.tensor([[True] * 6, [False, False, True, True, True, True]])
    embeddings = rotary(hidden, torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 2, 3]]))
    tokens = SimpleNamespace(hidden=hidden, valid=valid, embeddings=embeddings)
    assert torch.equal(keys_from_zero(key, tokens), key)
