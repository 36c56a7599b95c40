"""The engine's masks against literal ones, for prompts and for decoding with caches of another length in each layer."""

from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache, LlamaConfig

from fitprune import UnsupportedModel
from fitprune.engine.masks import causal_mask

BATCH, WIDTH = 3, 8


def parts(attention):
    config = LlamaConfig(hidden_size=WIDTH, num_attention_heads=2, num_hidden_layers=3, intermediate_size=8, vocab_size=8)
    config._attn_implementation = attention
    return SimpleNamespace(decoder=SimpleNamespace(config=config))


def literal(valid, queries, keys):
    """allowed[b][q][k]: the q-th of the last `queries` of `keys` tokens sees k."""
    return [
        [[k <= keys - queries + q and bool(row is None or row[k]) for k in range(keys)] for q in range(queries)]
        for row in (valid.tolist() if valid is not None else [None] * BATCH)
    ]


def allowed(mask, attention, queries, keys):
    if mask is None:
        return None
    if attention == "flex_attention":
        rows, columns = torch.arange(queries), torch.arange(keys)
        function = mask.mask_mod
        return [[[bool(function(torch.tensor(b), torch.tensor(0), q, k)) for k in columns] for q in rows] for b in range(BATCH)]
    assert mask.shape == (BATCH, 1, queries, keys) or mask.shape == (1, 1, queries, keys)
    if mask.dtype != torch.bool:
        mask = mask == 0
    return mask.expand(BATCH, -1, -1, -1)[:, 0].tolist()


def filled(lengths):
    cache = DynamicCache()
    for layer, length in enumerate(lengths):
        states = torch.zeros(BATCH, 2, length, 4)
        cache.update(states, states, layer)
    return cache


@pytest.mark.product(strength=2)
@pytest.mark.parametrize("attention", ["sdpa", "eager", pytest.param("flex_attention", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("queries", [1, 3, None])
def test_masks(attention, padded, queries):
    """`queries` tokens after caches of 6, 4 and 3; None for a prompt of each of these lengths."""
    lengths = [6, 4, 3]
    cache = filled(lengths) if queries else None
    for layer, length in enumerate(lengths):
        count, keys = (queries, length + queries) if queries else (length, length)
        valid = torch.ones(BATCH, keys, dtype=torch.bool)
        for row in range(BATCH):
            valid[row, :row] = False
        valid = valid if padded else None
        hidden = torch.zeros(BATCH, count, WIDTH)
        mask = causal_mask(parts(attention), hidden, valid, cache, layer if queries else None)
        found = allowed(mask, attention, count, keys)
        if found is None:
            # SDPA is causal by itself where nothing is padded, and one query sees all.
            assert attention == "sdpa"
            assert not padded
            assert count in (1, keys)
        elif attention != "sdpa" or padded:
            # A query that is itself padding may see anything: its row is never read.
            expected = literal(valid, count, keys)
            for row in range(BATCH):
                for q in range(count):
                    if valid is None or bool(valid[row, keys - count + q]):
                        assert found[row][q] == expected[row][q]
        else:
            assert found == literal(valid, count, keys)


def test_an_attention_without_a_mask_function():
    """transformers gives it no mask: right for whole prompts, while padding would be attended to."""
    hidden = torch.zeros(BATCH, 4, WIDTH)
    assert causal_mask(parts("own"), hidden, None) is None
    with pytest.raises(UnsupportedModel, match="no mask function") as error:
        causal_mask(parts("own"), hidden, torch.ones(BATCH, 4, dtype=torch.bool))
    assert "\n" not in str(error.value)
