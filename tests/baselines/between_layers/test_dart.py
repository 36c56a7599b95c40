"""DART against its literal rule: pivots by the norm of their keys, and what duplicates them least."""

import pytest
import torch

from baselines.between_layers.dart import DART
from baselines.shared.choosing.duplicates import least_duplicates
from fitprune import BudgetError, FitPruneError
from tests.reference.between import run
from tests.reference.dart import rule
from tests.support.models import DECODERS, batch, build, kept, new_tokens, prompt, saved
from tests.support.releases import cache_of

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


@pytest.mark.product(strength=1)
@pytest.mark.parametrize(("budget", "remainder", "stay"), [(16, "dropped", 20), (21, "dropped", 20), (21, "shared", 25)])
@pytest.mark.parametrize("kind", DECODERS)
def test_against_the_literal_rule(kind, budget, remainder, stay):
    model, gaps = build(kind, 4, seed=2), []
    inputs = prompt(model, [3, "image", 5], seed=3)
    expected = run(model, inputs, rule(gaps, budget, shared=remainder == "shared"), new_tokens=5)
    assert min(gaps) > 1e-5
    pruner = DART(max_num_trunction=budget, visual_tokens=36, remainder=remainder)
    with torch.no_grad(), pruner(model) as trace:
        body = model.model(**inputs)
        lengths = [cache_of(body).get_seq_length(layer) for layer in range(4)]
        logits = model(**inputs).logits[0]
        tokens = new_tokens(model, inputs, 5)[0].tolist()
    assert kept(trace) == expected.kept
    assert lengths == expected.kv_lengths == [44, 44, 8 + stay, 8 + stay]
    assert float((logits - expected.logits).abs().max()) < 5e-5
    assert tokens == expected.tokens


@pytest.mark.parametrize("k", [1, 3])
def test_other_layers(k):
    model, gaps = build("llama", 4, seed=2), []
    inputs = prompt(model, [3, "image", 5], seed=3)
    expected = run(model, inputs, rule(gaps, 9, k))
    with torch.no_grad(), DART(k, 9, visual_tokens=36)(model) as trace:
        model(**inputs)
    assert min(gaps) > 1e-5
    assert kept(trace) == expected.kept


@pytest.mark.parametrize("side", ["left", "right"])
def test_in_a_batch_with_few_text_tokens_and_several_images(side):
    model = build("llama-gqa", 4, seed=2)
    samples = [prompt(model, one, seed) for seed, one in enumerate(PARTS)]
    together = batch(samples, side)
    with torch.no_grad(), DART(max_num_trunction=19, visual_tokens=36, remainder="shared")(model) as trace:
        model(**together)
        tokens = new_tokens(model, together).tolist() if side == "left" else None
    assert trace.visual_in[2].tolist() == [23, 23, 42, 0]
    for row, sample in enumerate(samples):
        gaps = [1.0]
        expected = run(model, sample, rule(gaps, 19, shared=True), new_tokens=6)
        assert min(gaps) > 1e-5
        assert kept(trace, row) == expected.kept
        if tokens is not None:
            assert tokens[row] == expected.tokens


def test_an_image_at_the_end_has_no_text_pivots():
    model, gaps = build("llama", 4, seed=2), []
    inputs = prompt(model, [3, "image"], seed=3)
    expected = run(model, inputs, rule(gaps, 16))
    with torch.no_grad(), DART(max_num_trunction=16, visual_tokens=36)(model) as trace:
        model(**inputs)
    assert min(gaps) > 1e-5
    assert kept(trace) == expected.kept
    assert [int(count) for count in trace.visual_in] == [36, 36, 20, 20]


def test_fewer_tokens_than_the_budget():
    model = build("llama", 4)
    with torch.no_grad(), DART(max_num_trunction=128, visual_tokens=36)(model) as trace:
        model(**prompt(model, [3, "image", 5]))
    assert [int(count) for count in trace.visual_in] == [36] * 4


@pytest.mark.parametrize("seed", range(5))
def test_turns_on_random_similarities(seed):
    torch.manual_seed(seed)
    n = 50
    similarity, shares = torch.rand(3, 6, n), torch.randint(0, 12, (3, 6))
    free = torch.rand(3, n) > 0.2
    taken = least_duplicates(similarity, free, shares)
    for sample in range(3):
        left, expected = set(free[sample].nonzero().flatten().tolist()), set()
        for pivot in range(6):
            near = similarity[sample, pivot].tolist()
            own = sorted(left, key=lambda place, near=near: near[place])[: int(shares[sample, pivot])]
            expected.update(own)
            left.difference_update(own)
        assert set(taken[sample].nonzero().flatten().tolist()) == expected


def test_the_authors_counts():
    pruner = DART()
    assert (pruner.k, pruner.max_num_trunction, pruner.pivot_image_token, pruner.pivot_text_token) == (2, 128, 4, 4)
    shares = pruner.shares(torch.tensor([576, 288, 600]), torch.ones(3, 8, dtype=torch.bool))
    assert (4 + shares.sum(1)).tolist() == [132, 68, 132]  # floor(133 / 8) is 16 again


def test_products_are_counted():
    model = build("llama", 4)
    samples = [prompt(model, [3, "image", 5]), prompt(model, ["image", 2])]
    with torch.no_grad(), DART(max_num_trunction=16, visual_tokens=36)(model) as trace:
        model(**batch(samples))
    # Eight pivots and six, against 36 tokens each.
    assert trace.scoring_macs == [0, 0, (8 + 6) * 36 * 32, 0]


def test_bfloat16_and_text_prompts():
    model = build("llama-gqa", 4, seed=2, dtype=torch.bfloat16)
    text = prompt(model, [9])
    with torch.no_grad():
        dense = model(**text).logits
        with DART(max_num_trunction=16, visual_tokens=36)(model) as trace:
            logits = model(**prompt(model, [3, "image", 5])).logits
            assert [int(count) for count in trace.visual_in] == [36, 36, 20, 20]
            assert bool(logits.isfinite().all())
            assert torch.equal(model(**text).logits, dense)


@pytest.mark.parametrize("reduction", [0.05, 0.2, 0.4, 0.47])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=2)
    pruner = DART.for_reduction(model.config, reduction)
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, [3, "image", 4]))
    sizes = {"hidden_size": 32, "intermediate_size": 72, "kv_size": 16}
    assert saved(trace, 144, **sizes) == pytest.approx(reduction, abs=0.01)


def test_a_budget_out_of_reach_says_what_is_in_reach():
    config = build("llama", 4, patch=2).config
    with pytest.raises(BudgetError, match=r"it reaches 4\d\.\d%") as error:
        DART.for_reduction(config, 0.7)
    assert "\n" not in str(error.value)
    with pytest.raises(BudgetError, match="4 layers"):
        DART.for_reduction(config, 0.3, k=4)


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0},
        {"pivot_image_token": 0},
        {"pivot_text_token": -1},
        {"max_num_trunction": -1},
        {"visual_tokens": 0},
        {"remainder": "kept"},
    ],
)
def test_parameters_outside_their_range(options):
    with pytest.raises(FitPruneError):
        DART(**options)


def test_a_model_that_is_too_shallow():
    with pytest.raises(FitPruneError, match="prunes nothing"), DART(2)(build("llama", 2)):
        pass
