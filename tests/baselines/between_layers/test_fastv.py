"""FastV against its literal rule: head-mean attention of the last token in layer K-1."""

import pytest
import torch

from baselines.between_layers.fastv import FastV
from fitprune import BudgetError, FitPruneError
from tests.reference.fastv import fastv
from tests.support.models import DECODERS, batch, build, kept, new_tokens, prompt, saved
from tests.support.releases import cache_of

pytestmark = pytest.mark.releases


@pytest.mark.product(strength=1)
@pytest.mark.parametrize(("k", "r"), [(1, 0.5), (2, 0.5), (2, 0.75), (3, 0.25), (2, 1.0)])
@pytest.mark.parametrize("kind", DECODERS)
def test_against_the_literal_rule(kind, k, r):
    model = build(kind, 4, seed=2)
    inputs = prompt(model, [3, "image", 5], seed=3)
    expected = fastv(model, inputs, k, r, new_tokens=5)
    assert expected.closest > 1e-4
    with torch.no_grad(), FastV(k, r)(model) as trace:
        body = model.model(**inputs)
        cache = cache_of(body)
        lengths = [cache.get_seq_length(layer) for layer in range(4)]
        logits = model(**inputs).logits[0]
        tokens = new_tokens(model, inputs, 5)[0].tolist()
    assert kept(trace) == expected.kept
    assert lengths == expected.kv_lengths
    assert float((body.last_hidden_state[0] - expected.hidden).abs().max()) < 5e-5
    assert float((logits - expected.logits).abs().max()) < 5e-5
    assert tokens == expected.tokens


def test_in_a_batch():
    model = build("llama-gqa", 4, seed=2)
    parts = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]
    samples = [prompt(model, one, seed) for seed, one in enumerate(parts)]
    with torch.no_grad(), FastV(2, 0.5)(model) as trace:
        tokens = new_tokens(model, batch(samples)).tolist()
        for side in ("left", "right"):
            model(**batch(samples, side))
            for row, sample in enumerate(samples[:3]):
                assert kept(trace, row) == fastv(model, sample, 2, 0.5).kept
    for row, sample in enumerate(samples):
        expected = fastv(model, sample, 2, 0.5, new_tokens=6)
        assert expected.closest > 1e-4
        assert tokens[row] == expected.tokens


def test_the_trace_says_what_was_computed():
    model = build("llama", 4)
    inputs = prompt(model, [3, "image", 5])
    with torch.no_grad(), FastV(2, 0.5)(model) as trace:
        model(**inputs)
    assert [int(count) for count in trace.visual_in] == [36, 36, 18, 18]
    assert [int(count) for count in trace.visual_out] == [36, 36, 18, 18]
    # One row of queries against 44 keys, over all heads.
    assert trace.scoring_macs == [0, 44 * 32, 0, 0]


@pytest.mark.parametrize("reduction", [0.05, 0.2, 0.4, 0.49])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=2)
    pruner = FastV.for_reduction(model.config, reduction)
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, [3, "image", 4]))
    sizes = {"hidden_size": 32, "intermediate_size": 72, "kv_size": 16}
    assert saved(trace, 144, **sizes) == pytest.approx(reduction, abs=0.01)


def test_a_budget_out_of_reach_says_what_is_in_reach():
    config = build("llama", 4).config
    with pytest.raises(BudgetError, match=r"49\.9") as error:
        FastV.for_reduction(config, 0.7)
    assert "\n" not in str(error.value)
    with pytest.raises(BudgetError, match=r"24\.9"):
        FastV.for_reduction(config, 0.3, k=3)
    with pytest.raises(BudgetError, match="4 layers"):
        FastV.for_reduction(config, 0.3, k=4)


@pytest.mark.parametrize("options", [{"k": 0}, {"r": 0}, {"r": 1.5}, {"k": -1}])
def test_parameters_outside_their_range(options):
    with pytest.raises(FitPruneError):
        FastV(**options)


def test_a_model_that_is_too_shallow():
    with pytest.raises(FitPruneError, match="prunes nothing"), FastV(2, 0.5)(build("llama", 2)):
        pass
