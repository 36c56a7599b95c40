"""The two methods that engines serve on embeddings alone, vLLM's cosine and Edge-LLM's DART, against their literal rules."""

import pytest
import torch

from baselines.before_decoder.cosine import Cosine
from baselines.before_decoder.dart_embeddings import DARTEmbeddings
from fitprune import FitPruneError
from tests.reference.cosine import cosine
from tests.reference.dart import dart_embeddings
from tests.support.before_decoder import compare
from tests.support.families import build as build_family
from tests.support.families import inputs, processor
from tests.support.models import batch, build, kept, prompt

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image"], [4, "image", 1, "image", 7, 8, 9, 2, 6], [9]]


@pytest.mark.parametrize("positions", ["kept", "repacked"])
@pytest.mark.parametrize("rate", [0.3, 0.5, 0.99])
def test_cosine_in_a_batch(rate, positions):
    model = build("llama-gqa", 3, seed=2)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]

    def rule(found, row):
        stays, gap = cosine(found.features, rate)
        assert gap > 1e-6
        return [(index, None) for index in stays]

    compare(model, Cosine(rate, positions=positions), samples, lambda side: batch(samples, side), rule)


@pytest.mark.parametrize("options", [{}, {"reduction_ratio": 0.9}, {"reduction_ratio": 0.99, "pivot_text_token": 0}])
def test_dart_on_embeddings_in_a_batch(options):
    model, pruner = build("llama-gqa", 3, seed=2), DARTEmbeddings(**options)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]

    def rule(found, row):
        texts = [vector for at, vector in enumerate(found.embeds) if at not in found.visual]
        pivots = pruner.pivot_image_token, pruner.pivot_text_token
        stays, gap = dart_embeddings(found.features, texts, pruner.reduction_ratio, *pivots)
        assert gap > 1e-6
        return [(index, None) for index in stays]

    compare(model, pruner, samples, lambda side: batch(samples, side), rule)


@pytest.mark.parametrize(("pruner", "products", "stay"), [(Cosine(0.3), 1, 0.7), (DARTEmbeddings(0.3), 8, 0.7)])
def test_on_three_axes_and_what_it_costs(pruner, products, stay):
    model = build_family("qwen2_5_vl")
    sample = inputs(processor("qwen2_5_vl"), [["w1 w2", (60, 40), "w3 w4"]])
    n = int((sample["input_ids"] == model.config.image_token_id).sum())
    with torch.no_grad(), pruner(model) as trace:
        model(**sample)
    assert abs(len(kept(trace)[0]) - stay * n) < 1
    assert trace.scoring_macs == [products * n * 32, *[0] * (len(trace.scoring_macs) - 1)]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Cosine(1.0), "image_pruning_rate is the share.*not 1.0"),
        (lambda: DARTEmbeddings(0.0), "reduction_ratio is the share.*not 0.0"),
        (lambda: DARTEmbeddings(0.5, 0, 0), "one pivot at least, not 0 visual and 0 text"),
        (lambda: DARTEmbeddings(0.5, 4, -1), "not 4 visual and -1 text"),
    ],
)
def test_what_cannot_be_is_refused(made, said):
    with pytest.raises(FitPruneError, match=said):
        made()
