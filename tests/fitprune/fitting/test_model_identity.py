"""Stored statistics belong to one model: any weight, buffer or adapter that differs gives another identity."""

import copy
import time

import pytest
import torch
from torch import nn

import fitprune.fitting.identity as identity
from fitprune import fit
from fitprune.fitting.identity import model_identity
from tests.support.models import build, prompt


@pytest.fixture
def model():
    return build("llama", 3)


def layer(model, index=0):
    return model.model.language_model.layers[index]


class LowRank(nn.Module):
    """What peft puts in place of a linear layer."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, base.out_features, bias=False)

    def forward(self, hidden):
        return self.base_layer(hidden) + self.lora_B(self.lora_A(hidden))


def redraw(model):
    nn.init.normal_(layer(model).mlp.down_proj.weight)


def redraw_second(model):
    nn.init.normal_(layer(model, 1).self_attn.q_proj.weight)


def scale_slightly(model):
    with torch.no_grad():
        model.lm_head.weight.mul_(1.001)


def adapt(model):
    layer(model, 1).self_attn.q_proj = LowRank(layer(model, 1).self_attn.q_proj)


def other_rotations(model):
    model.model.language_model.rotary_emb.inv_freq.mul_(2)


def convert(model):
    layer(model).mlp.to(torch.bfloat16)


@pytest.mark.parametrize("change", [redraw, redraw_second, scale_slightly, adapt, other_rotations, convert])
def test_a_changed_model_has_another_identity(model, change):
    before = model_identity(model)
    assert model_identity(copy.deepcopy(model)) == before
    change(model)
    after = model_identity(model)
    assert after != before
    assert model_identity(model) == after


def test_trained_adapters_differ(model):
    adapt(model)
    before = model_identity(model)
    nn.init.normal_(layer(model, 1).self_attn.q_proj.lora_B.weight)
    assert model_identity(model) != before


def test_packed_weights_count(model):
    other = copy.deepcopy(model)
    nn.init.normal_(layer(other).mlp.down_proj.weight)
    quantised = [torch.ao.quantization.quantize_dynamic(each, {nn.Linear}) for each in (model, copy.deepcopy(model), other)]
    one, same, another = map(model_identity, quantised)
    assert one == same != another


def test_another_version_of_the_package_measures_anew(model, monkeypatch):
    before = model_identity(model)
    monkeypatch.setattr(identity.importlib.metadata, "version", lambda name: "0.0.0")
    assert model_identity(model) != before


def test_a_sample_is_spread_over_rows_and_columns():
    matrix = torch.arange(4096 * 64).view(4096, 64)
    sample = identity._sample(matrix)
    assert 128 <= len(sample) <= 256
    assert len({int(value) % 64 for value in sample}) == 64
    assert int(sample[-1]) > 0.98 * matrix.numel()
    assert identity._sample(torch.arange(256)).tolist() == list(range(256))
    assert identity._sample(torch.tensor(5)).tolist() == [5]


def test_kept_statistics_of_a_model_that_differs_in_one_matrix_are_not_taken(tmp_path):
    """The reproducer of the review: the first parameters of tower, first and last layer are the same."""
    model = build("llama", 3)
    samples = [prompt(model, [3, "image", 5], seed) for seed in range(3)]
    fit(model, samples, 0.5, progress=False, keep=tmp_path)
    redraw(model)
    redraw_second(model)
    assert fit(model, samples, 0.5, progress=False, keep=tmp_path).drop == fit(model, samples, 0.5, progress=False).drop


def test_it_is_cheap():
    from harness.models import load_model

    model = load_model("llava-tiny", device="cpu").model
    started = time.perf_counter()
    model_identity(model)
    assert time.perf_counter() - started < 0.3
