"""CDPruner against its literal rule, in the form on embeddings that OpenVINO serves."""

import pytest
import torch

from baselines.before_decoder.cdpruner import CDPrunerEmbeddings
from baselines.shared.greedy import most_diverse
from fitprune import FitPruneError
from tests.reference.cdpruner import cdpruner, relevance_of_embeddings, weights
from tests.support.before_decoder import compare
from tests.support.families import build as build_family
from tests.support.families import inputs, processor
from tests.support.models import batch, build, prompt

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


def test_the_choice_on_random_kernels():
    generator = torch.Generator().manual_seed(2)
    counts, keep = [20, 13, 0, 18], torch.tensor([9, 13, 0, 4])
    features = torch.randn(4, 20, 24, generator=generator)
    weight = torch.rand(4, 20, generator=generator) + 0.1
    present = torch.arange(20) < torch.tensor(counts)[:, None]
    found = most_diverse(features, weight, present, keep)
    for row, count in enumerate(counts):
        expected, lead = cdpruner(features[row, :count], weight[row, :count].tolist(), int(keep[row])) if count else ([], 1)
        assert lead > 1e-5
        assert found[row].nonzero()[:, 0].tolist() == expected


def test_beyond_the_rank_of_the_features_no_token_is_taken_twice():
    """Six tokens in three dimensions: the authors' code repeats one; here the rest follows by weight."""
    generator = torch.Generator().manual_seed(3)
    features, weight = torch.randn(1, 6, 3, generator=generator), torch.tensor([[0.5, 0.9, 0.3, 0.8, 0.7, 0.4]])
    found = most_diverse(features, weight, torch.ones(1, 6, dtype=torch.bool), torch.tensor([5]))
    expected, _ = cdpruner(features[0], (weight[0] / 0.9).tolist(), 5)
    assert found[0].nonzero()[:, 0].tolist() == expected
    assert len(expected) == 5


@pytest.mark.parametrize(("theta", "positions"), [(0.5, "repacked"), (0.0, "kept"), (1.0, "repacked"), (0.9, "kept")])
def test_in_a_batch(theta, positions):
    model = build("llama-gqa", 3, seed=2)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]

    def rule(found, row):
        texts = torch.stack([vector for at, vector in enumerate(found.embeds) if at not in found.visual])
        weight = weights(relevance_of_embeddings(found.features, texts), theta)
        stays, lead = cdpruner(found.features, weight, round(0.2 * len(found.features)))
        assert lead > 1e-6
        return [(index, None) for index in stays]

    compare(model, CDPrunerEmbeddings(80, theta, positions=positions), samples, lambda side: batch(samples, side), rule)


def test_on_three_axes_positions_are_kept_and_what_it_costs():
    model = build_family("qwen2_5_vl")
    sample = inputs(processor("qwen2_5_vl"), [["w1 w2", (60, 40), "w3"]])
    n = int((sample["input_ids"] == model.config.image_token_id).sum())
    pruner = CDPrunerEmbeddings.for_reduction(model.config, 0.5, visual_tokens=n)
    with torch.no_grad(), pruner(model) as trace:
        model(**sample)
    left = int(trace.visual_in[0])
    assert trace.scoring_macs == [(n + n**2) * 32 + n * left * (left - 1) // 2, *[0] * (len(trace.scoring_macs) - 1)]
    assert "kept" in pruner.notes(model)[0]


@pytest.mark.parametrize(
    ("given", "said"), [((100,), "below 100, not 100"), ((50, 1.5), "relevance_weight is a share, 0 to 1")]
)
def test_what_cannot_be_is_refused(given, said):
    with pytest.raises(FitPruneError, match=said):
        CDPrunerEmbeddings(*given)
