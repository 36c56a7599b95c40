"""Linear layers whose weights are packed, hidden or int8: every method does what it does on the weights they stand for."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from baselines.before_decoder.visionzip import VisionZip
from baselines.between_layers.fastv import FastV
from fitprune import FitPrune, UnsupportedModel, fit
from fitprune.models.execution import floating_type
from harness.cost import count
from tests.support import llava_hr
from tests.support.methods import RECIPE, method, one_a_kind, outcome, same
from tests.support.models import batch, build, prompt

pytestmark = pytest.mark.releases


class Nibbles:
    """Weights rounded to 16 levels per output, two in a byte."""

    def pack(self, linear):
        self.shape, self.offset = linear.weight.shape, linear.weight.min(1, keepdim=True).values
        self.step = (linear.weight.max(1, keepdim=True).values - self.offset).clamp(min=1e-8) / 15
        levels = ((linear.weight - self.offset) / self.step).round().byte().flatten()
        return (levels[::2] << 4 | levels[1::2])[:, None]

    def unpack(self, packed):
        levels = torch.stack([packed >> 4, packed & 15], 1).flatten().view(self.shape)
        return levels * self.step + self.offset


class PackedLinear(nn.Linear):
    """As bitsandbytes' 4-bit layers: a Linear whose `weight` is bytes of another shape."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.nibbles, self.bias = Nibbles(), linear.bias
        self.weight = nn.Parameter(self.nibbles.pack(linear), requires_grad=False)

    def forward(self, states):
        return functional.linear(states, self.nibbles.unpack(self.weight), self.bias)


class HiddenLinear(nn.Module):
    """As HQQ's layers: no Linear, and no `weight`."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        self.nibbles = Nibbles()
        self.W_q = nn.Parameter(self.nibbles.pack(linear), requires_grad=False)

    def forward(self, states):
        return functional.linear(states, self.nibbles.unpack(self.W_q), self.bias)


class CallableLinear(HiddenLinear):
    """As torch's dynamic layers: `weight` is a method."""

    def weight(self):
        return self.nibbles.unpack(self.W_q)


class WholeLinear(nn.Linear):
    """What the packed weights stand for."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features, device="meta")
        nibbles = Nibbles()
        self.weight, self.bias = nn.Parameter(nibbles.unpack(nibbles.pack(linear))), linear.bias


@torch.no_grad()
def with_layers(model, kind):
    """The same model with every linear layer but the head as one of `kind`."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and name != "lm_head":
            setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], kind(module))
    return model


@pytest.fixture(scope="module")
def plain():
    return build("llama-gqa", 5, seed=2)


@pytest.fixture(scope="module")
def whole(plain):
    return with_layers(plain, WholeLinear)


@pytest.fixture(scope="module")
def packed(plain):
    return {kind: with_layers(plain, kind) for kind in (PackedLinear, HiddenLinear, CallableLinear)}


@pytest.fixture(scope="module")
def inputs(plain):
    return batch([prompt(plain, parts, seed) for seed, parts in enumerate([[3, "image", 5], ["image", 2, "image", 7]])])


@pytest.fixture(scope="module", params=one_a_kind())
def on_whole(request, whole, inputs):
    """A method's name, and what comes out of it on the weights that the packed ones stand for."""
    return request.param, outcome(whole, inputs, method(request.param, whole))


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("kind", [PackedLinear, HiddenLinear, CallableLinear])
def test_every_method_on_packed_weights(on_whole, kind, whole, packed, inputs):
    name, expected = on_whole
    assert same(outcome(packed[kind], inputs, method(name, whole)), expected)


@pytest.mark.parametrize("kind", [PackedLinear, HiddenLinear, CallableLinear])
def test_counts_and_recipes_on_packed_weights(kind, whole, packed, inputs):
    for pruner in (None, FitPrune(RECIPE), VisionZip(9, 3, visual_tokens=36)):
        assert count(packed[kind], inputs, pruner) == count(whole, inputs, pruner)
    assert fit(packed[kind], [inputs], 0.5, progress=False).drop == fit(whole, [inputs], 0.5, progress=False).drop


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", one_a_kind())
def test_every_method_on_dynamic_int8(name, plain, inputs):
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(plain), {nn.Linear})
    expected, got = (outcome(model, inputs, method(name, plain)) for model in (plain, quantised))
    if name == "prumerge":  # its counts follow from the attention
        assert got[-1].isfinite().all()
    else:
        assert got[2:4] == expected[2:4]
    assert not torch.equal(got[-1], expected[-1])


def test_a_quantised_llava_hr():
    model = llava_hr.build()
    sample = llava_hr.prompt([3, "image", 5])
    expected = with_layers(model, WholeLinear)
    for kind in (PackedLinear, HiddenLinear, CallableLinear):
        pruner = VisionZip(9, 3, visual_tokens=36)
        assert same(outcome(with_layers(model, kind), sample, pruner), outcome(expected, sample, pruner))


def test_packed_integers_are_no_type_to_compute_in(packed):
    assert floating_type(packed[PackedLinear].model.multi_modal_projector.linear_1) is torch.float32
    alone = nn.Module()
    alone.weight = nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    assert floating_type(alone) is torch.get_default_dtype()


@pytest.mark.parametrize("pruner", [FitPrune(RECIPE), FastV(2)])
def test_an_output_projection_that_is_fused_is_refused_where_it_matters(pruner, plain, inputs, monkeypatch):
    layer = plain.model.language_model.layers[1]
    projection = layer.self_attn.o_proj
    monkeypatch.setattr(type(projection), "__call__", lambda self, states: self.forward(states))
    if isinstance(pruner, FastV):  # it drops nothing there
        outcome(plain, inputs, pruner)
        return
    with torch.no_grad(), pruner(plain), pytest.raises(UnsupportedModel, match="does not call its o_proj as a module"):
        plain(**inputs)
