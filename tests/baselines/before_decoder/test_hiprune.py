"""HiPrune against its literal rule, on random tensors and in models."""

import pytest
import torch

from baselines.before_decoder.hiprune import HiPrune, choose
from fitprune import BudgetError, FitPruneError
from tests.reference.hiprune import hiprune, received
from tests.support.models import build, prompt
from tests.support.shortened import check, layers_of, llava, measured, tiled, without_cls

pytestmark = pytest.mark.releases


# With alpha 1 anchors and neighbours may be more than stay.
@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("width", [6, 9])
def test_random_tensors_against_the_literal_rule(alpha, width):
    generator = torch.Generator().manual_seed(7)
    shallow, deep = torch.rand(4, 36, generator=generator), torch.rand(4, 36, generator=generator) / 36
    there = torch.rand(4, 36, generator=generator) < torch.tensor([[2.0], [0.7], [0.4], [0.0]])
    # Anchors in the corners, whose neighbours lie in other rows or beyond the view.
    shallow[0, 0], shallow[0, width - 1], shallow[0, 35] = 1, 1, 1
    keep = torch.tensor([30, 11, 3, 0])
    mask = choose(shallow, deep, there, keep, alpha, width)
    for view in range(4):
        own = there[view].nonzero()[:, 0].tolist()
        expected = hiprune(shallow[view].tolist(), deep[view].tolist(), own, int(keep[view]), alpha, width)
        assert mask[view].nonzero()[:, 0].tolist() == expected


def test_a_view_that_keeps_few_tokens_has_no_anchor():
    shallow = torch.eye(100)[[17, 17]]
    deep = torch.linspace(1, 0, 100).expand(2, -1)
    mask = choose(shallow, deep, torch.ones(2, 100, dtype=torch.bool), torch.tensor([25, 26]), 0.1, 10)
    assert mask[0].nonzero()[:, 0].tolist() == list(range(25))
    assert mask[1].nonzero()[:, 0].tolist() == [*range(25), 27]


def test_an_anchor_stays_though_its_neighbours_receive_more():
    """One anchor and four neighbours for three tokens: the authors' code fails."""
    shallow, deep = torch.eye(36)[[14]], torch.linspace(0.02, 0.03, 36)[None].scatter(1, torch.tensor([[14]]), 0)
    mask = choose(shallow, deep, torch.ones(1, 36, dtype=torch.bool), torch.tensor([3]), 1.0, 6)
    assert mask[0].nonzero()[:, 0].tolist() == hiprune(*map(torch.Tensor.tolist, (shallow[0], deep[0])), range(36), 3, 1, 6)
    assert mask[0].nonzero()[:, 0].tolist() == [14, 15, 20]


def rule(pruner, layers):
    def choose_of(seen, n):
        skip, going = int(seen.cls is not None), []
        for view in range(len(seen.views)):
            mine = [(index, patch) for index, (other, patch) in enumerate(seen.token) if other == view]
            keep = round(len(mine) * pruner.retention / pruner.visual_tokens)
            maps = [
                received(seen.query[layer % layers][view], seen.key[layer % layers][view], seen.heads)[skip:]
                for layer in (pruner.object_layer - 1, pruner.layer)
            ]
            width = round(len(maps[0]) ** 0.5)
            index = {patch: index for index, patch in mine}
            going += [index[patch] for patch in hiprune(*maps, list(index), keep, pruner.alpha, width)]
        return sorted(going), None, ()

    return choose_of


@pytest.mark.parametrize("options", [{"alpha": 0.5}, {"retention": 400, "object_layer": 2, "alpha": 0.2}])
@pytest.mark.parametrize("case", [llava, tiled, without_cls])
def test_a_batch_against_the_literal_rule(case, options):
    case = case()
    pruner = HiPrune(**{"object_layer": 1, **options})
    check(case, pruner, rule(pruner, layers_of(case.model)), new=2)


def test_the_attention_of_two_layers_is_paid_for():
    model = build("qwen2", 4, patch=2)
    pruner = HiPrune.for_reduction(model.config, 0.5)
    assert (pruner.object_layer, pruner.visual_tokens) == (1, 144)
    assert measured(model, pruner, prompt(model, [3, "image", 4])) == pytest.approx(0.5, abs=0.01)
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, [3, "image", 4]))
    assert trace.scoring_macs == [2 * 145**2 * 16, 0, 0, 0]


def test_what_cannot_be_is_refused():
    for options, said in (
        ({"alpha": 1.1}, "alpha is a share"),
        ({"object_layer": 0}, "counted from 1"),
        ({"retention": -1}, "-1"),
    ):
        with pytest.raises(FitPruneError, match=said):
            HiPrune(**options)
    model = build("llama", 2)
    with pytest.raises(FitPruneError, match="tower layer 8; this tower has 2 layers"), HiPrune()(model):
        pass
    with pytest.raises(BudgetError, match="HiPrune cannot save"):
        HiPrune.for_reduction(model.config, 0.9999)
