"""VisPruner against its literal rule, on random tensors and in models."""

import pytest
import torch

from baselines.before_decoder.vispruner import VisPruner, choose
from fitprune import BudgetError, FitPruneError
from tests.reference.vispruner import vispruner
from tests.support.models import batch, build, new_tokens, prompt
from tests.support.padded import padded
from tests.support.shortened import check, layers_of, llava, measured, tiled, without_cls

pytestmark = pytest.mark.releases

# Odd and even lists, fewer evens than go in a round, nothing to drop, all to drop.
SIZES = [36, 41, 7, 90, 1, 64]
KEEP = [[10, 20, 3, 17, 1, 0], [36, 1, 6, 89, 0, 63], [9, 40, 1, 3, 1, 5]]


@pytest.mark.parametrize("important_ratio", [0.5, 0.75, 0.0, 1.0])
@pytest.mark.parametrize("keep", KEEP)
def test_random_tensors_against_the_literal_rule(keep, important_ratio):
    generator = torch.Generator().manual_seed(3)
    scores = [torch.rand(n, generator=generator, dtype=torch.float64) for n in SIZES]
    features = [torch.randn(n, 12, generator=generator, dtype=torch.float64) for n in SIZES]
    score, patches = padded(scores)
    views = [1, 2, 1, 3, 1, 1]
    counts = torch.tensor(keep), important_ratio, 8 * torch.tensor(views)
    mask, macs = choose(score, padded(features)[0], patches, *counts)
    spent = 0
    for row, n in enumerate(SIZES):
        expected = vispruner(scores[row], features[row], keep[row], important_ratio, views[row])
        assert mask[row].nonzero()[:, 0].tolist() == expected
        important = int(keep[row] * important_ratio)
        spent += (n - important) ** 2 * 12 if important < keep[row] < n else 0
    assert macs == spent


def rule(pruner, layers):
    def choose_of(seen, n):
        keep = round(n * pruner.visual_token_num / pruner.visual_tokens)
        score = seen.attention(pruner.layer % layers).mean(0)
        return vispruner(score, seen.features(), keep, pruner.important_ratio, len(seen.views)), None, ()

    return choose_of


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("options", [{}, {"visual_token_num": 288, "important_ratio": 0.25}, {"layer": -1}])
@pytest.mark.parametrize("case", [llava, tiled, without_cls])
def test_a_batch_against_the_literal_rule(case, options):
    case = case()
    pruner = VisPruner(**options)
    check(case, pruner, rule(pruner, layers_of(case.model)))


def test_bfloat16():
    model = build("llama-gqa", 3, seed=2, dtype=torch.bfloat16)
    inputs = batch([prompt(model, [3, "image", 5]), prompt(model, [2, "image", 1, "image", 4], seed=1)])
    with torch.no_grad(), VisPruner(144)(model) as trace:
        assert new_tokens(model, inputs, 3).shape == (2, 3)
    assert [int(count) for count in trace.visual_in[0]] == [9, 18]


@pytest.mark.parametrize("important_ratio", [0.5, 1.0])
@pytest.mark.parametrize("reduction", [0.3, 0.5, 0.7, 0.85])
def test_for_reduction(reduction, important_ratio):
    model = build("qwen2", 4, patch=2)
    pruner = VisPruner.for_reduction(model.config, reduction, important_ratio=important_ratio)
    assert pruner.important_ratio == important_ratio
    inputs = prompt(model, [3, "image", 4])
    assert measured(model, pruner, inputs) == pytest.approx(reduction, abs=0.01)


def test_the_cosines_are_part_of_the_budget():
    model = build("qwen2", 4, patch=2)
    alone = VisPruner.for_reduction(model.config, 0.5, important_ratio=1)
    assert VisPruner.for_reduction(model.config, 0.5).visual_token_num < alone.visual_token_num


@pytest.mark.parametrize("options", [{"visual_token_num": 577}, {"important_ratio": 1.5}, {"important_ratio": -0.1}])
def test_values_that_cannot_be(options):
    with pytest.raises(FitPruneError, match=next(iter(options))) as error:
        VisPruner(**options)
    assert "\n" not in str(error.value)


def test_refusals():
    model = build("llama", 2)
    with pytest.raises(FitPruneError, match="tower layer 2; this tower has 2 layers"), VisPruner(layer=2)(model):
        pass
    with pytest.raises(BudgetError, match="reaches 9"):
        VisPruner.for_reduction(model.config, 0.9999)
    assert VisPruner().notes(model) == []
    assert "no [CLS]" in VisPruner().notes(without_cls().model)[0]
