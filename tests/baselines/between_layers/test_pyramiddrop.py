"""PyramidDrop against its literal rule: stages by the attention of the layer that comes next."""

import copy

import pytest
import torch

from baselines.between_layers.pyramiddrop import PyramidDrop
from fitprune import BudgetError, FitPruneError
from tests.reference.between import run
from tests.reference.pyramiddrop import rule
from tests.support.models import DECODERS, batch, build, kept, new_tokens, prompt, saved
from tests.support.releases import cache_of

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]
LAYERS, RATIOS = (1, 2, 3), (0.5, 0.3, 0.1)


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("positions", ["repacked", "kept"])
@pytest.mark.parametrize("kind", DECODERS)
def test_against_the_literal_rule(kind, positions):
    model, gaps = build(kind, 4, seed=2), []
    inputs = prompt(model, [3, "image", 5], seed=3)
    expected = run(model, inputs, rule(gaps, LAYERS, RATIOS), 5, repack=positions == "repacked")
    assert min(gaps) > 1e-4
    with torch.no_grad(), PyramidDrop(LAYERS, RATIOS, positions=positions)(model) as trace:
        body = model.model(**inputs)
        lengths = [cache_of(body).get_seq_length(layer) for layer in range(4)]
        logits = model(**inputs).logits[0]
        tokens = new_tokens(model, inputs, 5)[0].tolist()
    assert kept(trace) == expected.kept
    assert [len(indices) for indices in expected.kept] == [36, 18, 10, 3]
    assert lengths == expected.kv_lengths == [44, 26, 18, 11]
    assert float((logits - expected.logits).abs().max()) < 5e-5
    assert tokens == expected.tokens


def test_positions_are_repacked_by_default():
    assert PyramidDrop().positions == "repacked"
    assert PyramidDrop().params()["positions"] == "repacked"


@pytest.mark.parametrize("side", ["left", "right"])
def test_in_a_batch(side):
    model = build("llama-gqa", 4, seed=2)
    samples = [prompt(model, one, seed) for seed, one in enumerate(PARTS)]
    together = batch(samples, side)
    with torch.no_grad(), PyramidDrop(LAYERS, RATIOS)(model) as trace:
        model(**together)
        tokens = new_tokens(model, together).tolist() if side == "left" else None
    for row_, sample in enumerate(samples):
        gaps = [1.0]
        expected = run(model, sample, rule(gaps, LAYERS, RATIOS), 6, repack=True)
        assert min(gaps) > 1e-4
        assert kept(trace, row_) == expected.kept
        if tokens is not None:
            assert tokens[row_] == expected.tokens


@pytest.mark.parametrize("kind", ["default", "dynamic"])
def test_a_layer_of_each_stage_is_given_the_rotary_embedding_of_its_own_position_ids(kind):
    """Dynamic frequencies depend on the largest id: the second stage's, 12, lies in the window of 20, the first's not."""
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}
    model, seen = build("llama", 4, max_position_embeddings=20, rope_parameters=rope), []
    rotary, inputs = copy.deepcopy(model.get_decoder().rotary_emb), prompt(model, [3, "image", 5])
    hooks = [
        layer.self_attn.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
        for layer in model.get_decoder().layers
    ]
    with torch.no_grad(), PyramidDrop((2,), (0.1,))(model):
        new_tokens(model, inputs, 3)
    for hook in hooks:
        hook.remove()
    decoded = seen[-4:]
    assert [kwargs["position_ids"].tolist() for kwargs in decoded] == [[[45]], [[45]], [[12]], [[12]]]
    for kwargs in reversed(decoded):
        expected = rotary(kwargs["hidden_states"], kwargs["position_ids"])
        assert all(torch.equal(*pair) for pair in zip(kwargs["position_embeddings"], expected, strict=True))


def test_a_text_prompt_is_untouched():
    model = build("llama", 4)
    inputs = prompt(model, [9])
    with torch.no_grad():
        dense = model(**inputs).logits
        with PyramidDrop(LAYERS, RATIOS)(model) as trace:
            assert torch.equal(model(**inputs).logits, dense)
    assert trace.scoring_macs == [0] * 4


def test_what_is_computed_ahead_is_counted():
    model = build("llama-gqa", 4)  # hidden size 32: keys of 16, queries of 32
    samples = [prompt(model, [3, "image", 5]), prompt(model, ["image", 2])]
    with torch.no_grad(), PyramidDrop((2,), (0.5,))(model) as trace:
        model(**batch(samples))
    # Keys of 44 and 38 tokens, two queries, and their products over all heads.
    assert trace.scoring_macs == [0, 0, (44 + 38) * 32 * 16 + 2 * 32 * 32 + (44 + 38) * 32, 0]


def test_bfloat16():
    model = build("llama-gqa", 4, seed=2, dtype=torch.bfloat16)
    inputs = prompt(model, [3, "image", 5])
    with torch.no_grad(), PyramidDrop(LAYERS, RATIOS)(model) as trace:
        logits = model(**inputs).logits
    assert [int(count) for count in trace.visual_in] == [36, 18, 10, 3]
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("reduction", [0.05, 0.3, 0.5, 0.7])
def test_for_reduction(reduction):
    model = build("qwen2", 8, patch=2)
    pruner = PyramidDrop.for_reduction(model.config, reduction)
    assert pruner.layer_list == (2, 4, 6)
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, [3, "image", 4]))
    sizes = {"hidden_size": 32, "intermediate_size": 72, "kv_size": 16}
    assert saved(trace, 144, **sizes) == pytest.approx(reduction, abs=0.01)


def test_a_budget_out_of_reach_says_what_is_in_reach():
    config = build("llama", 8, patch=2).config
    with pytest.raises(BudgetError, match=r"it reaches 7\d\.\d%") as error:
        PyramidDrop.for_reduction(config, 0.9)
    assert "\n" not in str(error.value)
    assert PyramidDrop.for_reduction(config, 0.85, layer_list=(1, 2, 3)).layer_list == (1, 2, 3)


def test_the_authors_stages_at_other_depths():
    for layers, stages in ((32, (8, 16, 24)), (40, (10, 20, 30)), (28, (7, 14, 21)), (4, (1, 2, 3)), (3, (1, 2))):
        config = build("llama", layers, hidden=8, heads=4, patch=2).config
        assert PyramidDrop.for_reduction(config, 0.3).layer_list == stages


@pytest.mark.parametrize(
    "options",
    [
        {"layer_list": ()},
        {"layer_list": (8, 16)},
        {"layer_list": (0, 1, 2)},
        {"layer_list": (2, 1, 3)},
        {"image_token_ratio_list": (0.5, 0.6, 0.1)},
        {"image_token_ratio_list": (1.5, 0.6, 0.1)},
    ],
)
def test_parameters_outside_their_range(options):
    with pytest.raises(FitPruneError):
        PyramidDrop(**options)


def test_a_model_that_is_too_shallow():
    with pytest.raises(FitPruneError, match="4 layers"), PyramidDrop()(build("llama", 4)):
        pass
