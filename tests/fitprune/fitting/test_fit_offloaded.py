"""Weights that accelerate keeps elsewhere: the fit runs on the device that they are brought to, and finds the same recipe."""

import pytest
import torch

from fitprune import FitPrune, fit
from fitprune.fitting.identity import model_identity
from fitprune.models.execution import execution_device
from fitprune.search import drop_counts
from tests.support import families
from tests.support.models import build, prompt

accelerate = pytest.importorskip("accelerate")


@pytest.fixture
def offloaded():
    model = build("llama", 4, seed=3)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.model.language_model.layers[0].mlp.down_proj.weight.is_meta
    return model


@pytest.fixture(scope="module")
def whole():
    return build("llama", 4, seed=3)


@pytest.fixture(scope="module")
def samples(whole):
    return [prompt(whole, [3, "image", 5], seed) for seed in range(3)]


@pytest.mark.parametrize("mode", ["sequential", "one-pass"])
def test_the_same_recipe(offloaded, whole, samples, mode):
    recipe = fit(offloaded, samples, 0.5, mode=mode, progress=False)
    expected = fit(whole, samples, 0.5, mode=mode, progress=False)
    assert recipe.drop == expected.drop
    assert recipe.provenance["statistics"] == expected.provenance["statistics"]


def test_the_same_drop_counts(offloaded, whole, samples):
    assert torch.equal(drop_counts(offloaded, samples, 0.2), drop_counts(whole, samples, 0.2))


def test_the_same_identity_and_weights_count(offloaded, whole):
    assert model_identity(offloaded) == model_identity(whole)
    other = build("llama", 4, seed=3)
    torch.nn.init.normal_(other.model.language_model.layers[0].mlp.down_proj.weight)
    accelerate.cpu_offload(other, execution_device=torch.device("cpu"))
    assert model_identity(other) != model_identity(whole)


def test_weights_are_offloaded_again_and_the_model_works(offloaded, whole, samples):
    recipe = fit(offloaded, samples, 0.5, progress=False)
    assert all(parameter.is_meta for parameter in offloaded.model.language_model.parameters())
    with torch.no_grad(), FitPrune(recipe)(offloaded), FitPrune(recipe)(whole):
        assert torch.equal(offloaded(**samples[0]).logits, whole(**samples[0]).logits)


def test_a_tiled_model_goes_on_from_kept_statistics(tmp_path):
    """The newline embedding is offloaded while the decoder runs alone."""
    whole = families.build("llava_next", 4, seed=1)
    samples = [families.inputs(families.processor("llava_next"), [["w1 w2", (40, 20), "w3"], ["w4", (20, 44), "w5 w6"]])]
    for reduction in (0.6, 0.4):
        model = families.build("llava_next", 4, seed=1)
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
        recipe = fit(model, samples, reduction, progress=False, keep=tmp_path)
        assert recipe.drop == fit(whole, samples, reduction, progress=False).drop


def test_weights_on_disk(whole, samples, tmp_path):
    model = build("llama", 4, seed=3)
    accelerate.disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    assert fit(model, samples, 0.5, progress=False).drop == fit(whole, samples, 0.5, progress=False).drop


def test_the_execution_device():
    part = torch.nn.Linear(2, 2, device="meta")
    assert execution_device(part) == torch.device("meta")

    class Hook:
        offload, execution_device = True, "cuda:1"

    part._hf_hook = Hook()
    assert execution_device(torch.nn.Sequential(part)) == torch.device("cuda:1")
