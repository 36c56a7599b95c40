"""4671 visual tokens, the most of a LLaVA-OneVision picture: no method holds the similarities of all pairs at once."""

import pytest
import torch

from baselines.before_decoder import gprune, prumerge, vispruner
from baselines.shared.choosing import rounds
from tests.support.waits import Largest

TOKENS = 4671


def _gprune(features, there):
    return gprune.flow(features, there, 0.5, 0.03, 1)


def _vispruner(features, there):
    return vispruner.choose(features[..., 0], features, there, torch.tensor([4000]), 0.1, torch.tensor([400]))[0]


def _prumerge(features, there):
    attention = features[..., 0].exp()
    kept = prumerge.given_choice(attention, there, torch.tensor([2000]), True)
    return prumerge.merge(attention, features, features, there, kept)[0]


@pytest.mark.parametrize("work", [_gprune, _vispruner, _prumerge])
def test_the_largest_tensor_is_a_block_of_a_thousand_rows(work):
    """DivPrune's is in its own tests, beside the choice from the whole matrix."""
    generator = torch.Generator().manual_seed(0)
    features, there = torch.randn(1, TOKENS, 4, generator=generator), torch.arange(TOKENS)[None] < 4600
    with Largest() as held:
        work(features, there)
    assert held.numel < 1030 * TOKENS


@pytest.mark.parametrize(("module", "size", "held"), [(gprune, 4, 0), (prumerge, 5, None), (rounds, 3, 0)])
def test_what_is_computed_in_blocks_is_the_same(monkeypatch, module, size, held):
    generator = torch.Generator().manual_seed(0)
    features, there = torch.randn(3, 30, 4, generator=generator), torch.arange(30) < torch.tensor([[30], [0], [17]])

    def found():
        attention, keep = features[..., 0].exp(), torch.tensor([12, 0, 3])
        if module is gprune:
            return gprune.flow(features, there, 0.5, 0.03, 5)
        if module is rounds:
            return vispruner.choose(attention, features, there, keep, 0.5, torch.tensor([3, 8, 8]))[0]
        return prumerge.merge(attention, features, features, there, prumerge.given_choice(attention, there, keep, True))[0]

    whole = found()
    monkeypatch.setattr(module, "BLOCK", size)
    if held is not None:
        monkeypatch.setattr(module, "HELD", held)
    torch.testing.assert_close(found(), whole, rtol=1e-5, atol=1e-6)
    assert whole.any()
