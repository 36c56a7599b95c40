"""Uniform stride against its literal rule."""

import pytest
import torch

from baselines.controls.uniform import Uniform, strided
from fitprune import FitPruneError
from tests.support.before_decoder import compare, saved
from tests.support.models import batch, build, kept, prompt

pytestmark = pytest.mark.releases


def test_every_count_of_every_total():
    for total in range(1, 30):
        for keep in range(total + 1):
            index = torch.arange(33)[None]
            found = strided(index, torch.tensor([total]), torch.tensor([keep]))[0, :total].nonzero().flatten().tolist()
            assert found == [i * total // keep for i in range(keep)]


def test_every_fourth():
    model = build("llama", 2)
    with torch.no_grad(), Uniform(0.75)(model) as trace:
        model(**prompt(model, [3, "image", 5]))
    assert kept(trace) == [list(range(0, 36, 4))] * 2


def test_in_a_batch():
    model = build("llama-gqa", 3, seed=2)
    parts = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]
    samples = [prompt(model, one, seed) for seed, one in enumerate(parts)]

    def rule(found, row):
        n = len(found.visual)
        count = n - round(n * 0.7)
        return [(i * n // count, None) for i in range(count)]

    compare(model, Uniform(0.7), samples, lambda side: batch(samples, side), rule)


@pytest.mark.parametrize("reduction", [0.05, 0.3, 0.5, 0.7, 0.9])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=2)
    with torch.no_grad(), Uniform.for_reduction(model.config, reduction)(model) as trace:
        model(**prompt(model, [3, "image", 4]))
    assert saved(model, trace) == pytest.approx(reduction, abs=0.01)


def test_bfloat16():
    model = build("llama", 2, dtype=torch.bfloat16)
    with torch.no_grad(), Uniform(0.5)(model) as trace:
        assert model(**prompt(model, [3, "image", 5])).logits.isfinite().all()
    assert kept(trace) == [list(range(0, 36, 2))] * 2


@pytest.mark.parametrize("ratio", [0, 1.5, -1])
def test_parameters_outside_their_range(ratio):
    with pytest.raises(FitPruneError, match="ratio"):
        Uniform(ratio)
