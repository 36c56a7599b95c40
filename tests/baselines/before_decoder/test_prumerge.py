"""LLaVA-PruMerge and PruMerge+ against their literal rule, on random tensors and in models."""

import pytest
import torch

from baselines.before_decoder.prumerge import PruMerge, adaptive_choice, given_choice, merge, outliers
from fitprune import BudgetError, FitPruneError
from tests.reference.prumerge import adaptive_choice as literal_adaptive
from tests.reference.prumerge import adaptive_ratio
from tests.reference.prumerge import given_choice as literal_given
from tests.reference.prumerge import merge as literal_merge
from tests.support.models import batch, build, kept, new_tokens, prompt
from tests.support.padded import padded, places
from tests.support.shortened import check, layers_of, llava, measured, tiled, without_cls

pytestmark = pytest.mark.releases
SIZES = [36, 41, 7, 90, 1, 144]


def samples(power):
    """Attention, keys and features of samples; the higher the power, the more outliers."""
    generator = torch.Generator().manual_seed(3)
    attention = [torch.rand(n, generator=generator) ** power for n in SIZES]
    keys = [torch.randn(n, 8, generator=generator) for n in SIZES]
    return attention, keys, [torch.randn(n, 12, generator=generator) for n in SIZES]


@pytest.mark.parametrize("power", [1, 4, 12])
def test_outliers_are_numpys(power):
    attention, _, _ = samples(power)
    counts = outliers(*padded(attention)).tolist()
    assert counts == [round(adaptive_ratio(own) * len(own)) for own in attention]
    assert (max(counts) > 0) is (power > 1)


@pytest.mark.parametrize("power", [1, 4, 12])
@pytest.mark.parametrize("plus", [True, False])
def test_random_tensors_against_the_literal_adaptive_rule(plus, power):
    attention, keys, features = samples(power)
    score, patches = padded(attention)
    chosen = adaptive_choice(score, patches, plus)
    merged, names = merge(score, padded(keys)[0], padded(features)[0], patches, chosen)
    for row, own in enumerate(attention):
        expected = literal_adaptive(own, plus)
        assert places(chosen[row]) == expected
        rows = literal_merge(own, keys[row], features[row], expected)
        torch.testing.assert_close(merged[row][names[row] >= 0], rows, rtol=0, atol=1e-5)


@pytest.mark.parametrize("counts", [[10, 20, 3, 17, 1, 36], [36, 1, 6, 89, 1, 143]])
@pytest.mark.parametrize("plus", [True, False])
def test_random_tensors_with_a_count_that_is_given(counts, plus):
    attention, _, _ = samples(2)
    chosen = given_choice(*padded(attention), torch.tensor(counts), plus)
    for row, own in enumerate(attention):
        spaced = counts[row] * 3 // 4 if plus else 0
        assert places(chosen[row]) == literal_given(own, counts[row], spaced)


def test_a_given_ratio_that_the_authors_stride_divides_is_their_rule():
    """Where no token of most attention lies on the stride, which their code then keeps once, too."""
    attention = torch.rand(144, generator=torch.Generator().manual_seed(1))
    attention[torch.arange(0, 144, 4)] = 0
    attention[torch.arange(12) * 12 + 1] = 50 + torch.arange(12.0)
    assert adaptive_ratio(attention) == 1 / 12
    present = torch.ones(1, 144, dtype=torch.bool)
    adaptive = places(adaptive_choice(attention[None], present, True)[0])
    # One third of the distance of twelve: every fourth token.
    assert adaptive[12:] == list(range(0, 144, 4))
    assert places(given_choice(attention[None], present, torch.tensor([48]), True)[0]) == adaptive


def rule(pruner, layers):
    """The sum of all that went is named by the last token that went."""

    def choose(seen, n):
        layer = pruner.layer % layers
        attention = seen.attention(layer, heads=1)[0]
        if pruner.if_adaptive:
            chosen = literal_adaptive(attention, pruner.plus)
        else:
            count = int(n * pruner.reduction_ratio * (4 if pruner.plus else 1) + 1e-9)
            chosen = literal_given(attention, count, count * 3 // 4 if pruner.plus else 0)
        rows = literal_merge(attention, seen.keys(layer, mean=False), seen.features(), chosen)
        made = [max(token for token in range(n) if token not in chosen)] if len(chosen) < n else []
        return chosen + made, rows, made

    return choose


@pytest.mark.product(strength=1)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"plus": False},
        {"if_adaptive": False},
        {"if_adaptive": False, "reduction_ratio": 1 / 4},
        {"if_adaptive": False, "reduction_ratio": 1 / 3, "plus": False, "layer": -2},
    ],
)
@pytest.mark.parametrize("case", [llava, tiled, without_cls])
def test_a_batch_against_the_literal_rule(case, options):
    case = case()
    pruner = PruMerge(**options)
    check(case, pruner, rule(pruner, layers_of(case.model)))


def test_each_sample_has_its_own_ratio():
    case = llava()
    with torch.no_grad(), PruMerge(plus=False)(case.model) as trace:
        case.model(**case.batch)
    alone = []
    for sample in case.samples:
        with torch.no_grad(), PruMerge(plus=False)(case.model) as single:
            case.model(**sample)
        alone.append(kept(single))
    assert [kept(trace, row) for row in range(len(case.samples))] == alone
    assert len({len(own[0]) for own in alone}) > 2


def test_bfloat16():
    model = build("llama-gqa", 3, seed=2, dtype=torch.bfloat16)
    inputs = batch([prompt(model, [3, "image", 5]), prompt(model, [2, "image", 1, "image", 4], seed=1)])
    with torch.no_grad(), PruMerge(if_adaptive=False)(model) as trace:
        assert new_tokens(model, inputs, 3).shape == (2, 3)
    assert [int(count) for count in trace.visual_in[0]] == [19, 37]


@pytest.mark.parametrize("plus", [True, False])
@pytest.mark.parametrize("reduction", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_for_reduction(reduction, plus):
    model = build("qwen2", 8, patch=2)
    pruner = PruMerge.for_reduction(model.config, reduction, plus=plus)
    assert not pruner.if_adaptive
    assert measured(model, pruner, prompt(model, [3, "image", 4])) == pytest.approx(reduction, abs=0.01)


@pytest.mark.parametrize("options", [{"reduction_ratio": 0}, {"reduction_ratio": 0.3}, {"reduction_ratio": 1.1, "plus": False}])
def test_ratios_that_cannot_be(options):
    with pytest.raises(FitPruneError, match="reduction_ratio") as error:
        PruMerge(**options)
    assert "\n" not in str(error.value)


def test_refusals():
    model = build("llama", 2)
    with pytest.raises(FitPruneError, match="tower layer 2; this tower has 2 layers"), PruMerge(layer=2)(model):
        pass
    # One token and the sum of the others are left at least.
    with pytest.raises(BudgetError, match=r"PruMerge\+ cannot save 99\.0%.*reaches 9\d\.\d%"):
        PruMerge.for_reduction(model.config, 0.99)
    assert PruMerge().notes(model) == []
    assert "no [CLS]" in PruMerge().notes(without_cls().model)[0]
