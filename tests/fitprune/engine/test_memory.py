"""Peak memory of a pruned prefill, KV cache included, is never above the dense one's."""

import contextlib

import pytest
import torch
from transformers import DynamicCache

from fitprune import Calibration, FitPrune, Recipe
from harness.cost.memory import peak_cpu_bytes
from tests.support.models import batch, build, prompt
from tests.support.releases import with_cache

pytestmark = pytest.mark.releases


@pytest.fixture(scope="module")
def model():
    """In the proportions of a 7B model: the feed-forward states, not the attention's statistics, are the largest tensors."""
    return build("llama", 4, patch=1, hidden=128, heads=4, seed=5, intermediate_size=344)


def peak(model, inputs, pruner=None):
    """Bytes at the peak of a prefill with a cache, beyond weights and inputs."""

    def prefill():
        with torch.no_grad(), pruner(model) if pruner else contextlib.nullcontext():
            model(**inputs, **with_cache(model, DynamicCache(config=model.config)), logits_to_keep=1)

    prefill()  # caches of the allocator and of the rotary embedding are filled once
    return peak_cpu_bytes(prefill)


@pytest.mark.parametrize("size", [1, pytest.param(3, marks=pytest.mark.exhaustive)])
def test_a_pruned_prefill_takes_no_more_memory_than_a_dense_one(model, size):
    samples = [prompt(model, [8, "image", 30 + seed], seed) for seed in range(size)]
    inputs = samples[0] if size == 1 else batch(samples)
    dense = peak(model, inputs)
    calibration = Calibration(model, [inputs], progress=False)
    peaks = [peak(model, inputs, FitPrune(calibration.recipe(reduction))) for reduction in (0.05, 0.3, 0.8)]
    assert max(peaks) <= dense
    assert peaks[-1] < 0.9 * dense


def test_a_drop_in_the_last_layer_alone_takes_no_more_memory(model):
    """There every cache entry is already kept, and the layer holds both lengths for a moment."""
    inputs = prompt(model, [8, "image", 30])
    recipe = Recipe([0] * 3 + [288], 576)
    assert peak(model, inputs, FitPrune(recipe)) <= peak(model, inputs)
