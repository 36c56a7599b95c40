"""VTW: no visual token from layer K on, and the calibration of K by the authors' divergence."""

import pytest
import torch

from baselines.between_layers.vtw import VTW, divergence
from fitprune import BudgetError, FitPruneError
from tests.reference import vtw as reference_rules
from tests.reference.between import run
from tests.reference.vtw import rule
from tests.support.models import DECODERS, batch, build, kept, new_tokens, prompt
from tests.support.releases import cache_of

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("kind", DECODERS)
def test_against_the_literal_rule(kind, k):
    model = build(kind, 4, seed=2)
    inputs = prompt(model, [3, "image", 5], seed=3)
    expected = run(model, inputs, rule(k), new_tokens=5)
    with torch.no_grad(), VTW(k)(model) as trace:
        body = model.model(**inputs)
        lengths = [cache_of(body).get_seq_length(layer) for layer in range(4)]
        logits = model(**inputs).logits[0]
        tokens = new_tokens(model, inputs, 5)[0].tolist()
    assert kept(trace) == expected.kept == [list(range(36))] * k + [[]] * (4 - k)
    assert lengths == expected.kv_lengths == [44] * k + [8] * (4 - k)
    assert float((logits - expected.logits).abs().max()) < 5e-5
    assert tokens == expected.tokens
    assert trace.scoring_macs == [0] * 4


def test_repacked_as_the_authors_other_setting():
    model = build("llama-gqa", 4, seed=2)
    inputs = prompt(model, [3, "image", 5], seed=3)
    expected = run(model, inputs, rule(2), new_tokens=6, repack=True)
    with torch.no_grad(), VTW(2, positions="repacked")(model):
        logits = model(**inputs).logits[0]
        tokens = new_tokens(model, inputs)[0].tolist()
    assert float((logits - expected.logits).abs().max()) < 5e-5
    assert tokens == expected.tokens


@pytest.mark.parametrize("positions", ["kept", "repacked"])
def test_in_a_batch(positions):
    model = build("llama-gqa", 4, seed=2)
    samples = [prompt(model, one, seed) for seed, one in enumerate(PARTS)]
    with torch.no_grad(), VTW(2, positions=positions)(model):
        tokens = new_tokens(model, batch(samples)).tolist()
    for row, sample in enumerate(samples):
        assert tokens[row] == run(model, sample, rule(2), 6, positions == "repacked").tokens


def test_divergence_is_the_authors_direction():
    full, withdrawn = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]), torch.tensor([[3.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    expected = [reference_rules.divergence(full[row], withdrawn[row]) for row in range(2)]
    assert divergence(full, withdrawn).tolist() == pytest.approx(expected)
    other = torch.nn.functional.kl_div(full.log_softmax(1), withdrawn.softmax(1), reduction="batchmean")
    assert float(other) == pytest.approx(sum(expected) / 2)
    assert divergence(full, full).tolist() == [0, 0]


def literal_divergences(model, samples, first):
    """Mean divergence for each K from `first` on, from the reference's logits of one sample at a time."""
    means = {}
    for k in range(first, model.config.text_config.num_hidden_layers):
        total = 0.0
        for sample in samples:
            full = run(model, sample, rule(None)).logits[-1]
            total += reference_rules.divergence(full, run(model, sample, rule(k)).logits[-1])
        means[k] = total / len(samples)
    return means


@pytest.mark.parametrize("side", ["left", pytest.param("right", marks=pytest.mark.exhaustive)])
def test_calibration_finds_the_first_layer_that_is_good_enough(side):
    model = build("llama", 4, seed=5)
    samples = [prompt(model, one, seed) for seed, one in enumerate(PARTS[:3])]
    means = literal_divergences(model, samples, 1)
    batches = [batch(samples[:2], side), batch(samples[2:], side)]
    for eta in (*means.values(), max(means.values()) * 2):
        eta *= 1.001
        first = next(k for k, mean in means.items() if mean <= eta)
        assert VTW.calibrate(model, batches, eta) == VTW(first)
    assert VTW.calibrate(model, iter(batches), 1e9, first=2) == VTW(2)
    with pytest.raises(FitPruneError, match=rf"at K={min(means, key=means.get)}"):
        VTW.calibrate(model, batches, 1e-12)


def test_calibration_starts_at_the_authors_layer():
    deep = build("llama", 32, hidden=8, heads=2, num_key_value_heads=2)
    sample = [prompt(deep, [2, "image", 2])]
    assert VTW.calibrate(deep, sample, 1e9) == VTW(5)
    assert VTW.calibrate(build("llama", 40, hidden=8, heads=2, num_key_value_heads=2), sample, 1e9) == VTW(5)
    assert VTW.calibrate(build("llama", 13, hidden=8, heads=2, num_key_value_heads=2), sample, 1e9) == VTW(2)


def test_calibration_refuses_what_it_cannot_use():
    model = build("llama", 3)
    with pytest.raises(FitPruneError, match="no calibration samples"):
        VTW.calibrate(model, [])
    with pytest.raises(FitPruneError, match="no visual tokens"):
        VTW.calibrate(model, [prompt(model, [5])])
    with pytest.raises(FitPruneError, match="from 1 to 2, not 3"):
        VTW.calibrate(model, [prompt(model, [2, "image"])], first=3)


def test_for_reduction():
    model = build("qwen2", 8, patch=4)
    assert VTW.for_reduction(model.config, 0.5) == VTW(4)
    assert VTW.for_reduction(model.config, 0.755) == VTW(2)
    with pytest.raises(BudgetError, match=r"25\.0% or 37\.5%"):
        VTW.for_reduction(model.config, 0.3)
    with pytest.raises(BudgetError, match=r"87\.5%"):
        VTW.for_reduction(model.config, 0.95)


def test_parameters_and_models_outside_their_range():
    with pytest.raises(FitPruneError, match="at least 1, not 0"):
        VTW(0)
    with pytest.raises(FitPruneError, match="decoder of 3 layers"), VTW(3)(build("llama", 3)):
        pass


def test_bfloat16():
    model = build("llama-gqa", 4, seed=2, dtype=torch.bfloat16)
    inputs = prompt(model, [3, "image", 5])
    with torch.no_grad(), VTW(2)(model) as trace:
        logits = model(**inputs).logits
    assert [int(count) for count in trace.visual_in] == [36, 36, 0, 0]
    assert logits.dtype == torch.bfloat16
    assert bool(logits.isfinite().all())
