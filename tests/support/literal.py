"""A pruned model beside the literal reference: `tests/reference/decoder.py`."""

import torch

from tests.reference.decoder import reference_of
from tests.support.models import kept, new_tokens
from tests.support.releases import cache_of


def tokens_of(model, sample):
    """Visual tokens of an unpadded prompt, newlines left out, by the reference's own layout."""
    return sum(reference_of(model).pool(sample))


def compare(model, sample, pruner, expected):
    """Prune one unpadded sample and compare kept sets, cache lengths, hidden states, logits and greedy tokens with a `Run`."""
    assert expected.closest > 1e-4, "the random model has a near-tie: choose another seed"
    new = len(expected.tokens)
    with torch.no_grad(), pruner(model) as trace:
        body = model.model(**sample)
        output = model(**sample)
        tokens = new_tokens(model, sample, new)[0].tolist()
    assert kept(trace) == expected.kept
    lengths = [cache_of(output).get_seq_length(layer) for layer in range(len(expected.kept))]
    assert lengths == expected.kv_lengths
    assert float((body.last_hidden_state[0] - expected.hidden).abs().max()) < 5e-5
    assert float((output.logits[0] - expected.logits).abs().max()) < 5e-5
    assert tokens == expected.tokens
    return trace
