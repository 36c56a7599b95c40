"""Two independent counters of one forward, torch's FlopCounterMode and fvcore; and what a trace's counts say was saved."""

from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_count, get_shape
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.cost.flops import visual_macs

TOLERANCE = 0.005


def torch_flops(model: nn.Module, backend: SDPBackend | None = SDPBackend.MATH, **inputs: Any) -> FlopCounterMode:
    """FlopCounterMode after one forward; with the MATH backend SDPA is plain matrix products, which it counts."""
    kernels = [backend] if backend is not None else list(SDPBackend.__members__.values())
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(kernels):
        model(**inputs, logits_to_keep=1)
    return counter


class _Logits(nn.Module):
    """The model as a function of tensors alone, as jit tracing wants it."""

    def __init__(self, model: nn.Module, keys: list[str]) -> None:
        super().__init__()
        self.model, self.keys = model, keys

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.keys, tensors, strict=True)), logits_to_keep=1, use_cache=False).logits


def _convolution(inputs: list[Any], outputs: list[Any]) -> int:
    return conv_flop_count(get_shape(inputs[0]), get_shape(inputs[1]), get_shape(outputs[0]))


def fvcore_flops(model: nn.Module, inputs: dict[str, torch.Tensor]) -> int:
    analysis = FlopCountAnalysis(_Logits(model, list(inputs)), tuple(inputs.values()))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    # fvcore counts multiply-accumulates, and norms, which the convention leaves out.
    analysis.set_op_handle("aten::layer_norm", lambda inputs, outputs: 0)
    # A convolution whose padding is given by name, as SigLIP's patches are, is unknown to fvcore.
    analysis.set_op_handle("aten::_convolution_mode", _convolution)
    total = 2 * int(analysis.total())
    assert "aten::scaled_dot_product_attention" not in analysis.unsupported_ops()
    return total


def visual_reduction(text_config: Any, visual_tokens: Any, visual_in: Any, visual_out: Any, scoring_macs: Any = ()) -> float:
    """Share of the visual tokens' decoder FLOPs that was saved, scoring included: the paper's figure, measured.

    `visual_tokens`: per sample, visual tokens in the prompt; `visual_in`, `visual_out`: per layer and sample, as in
    `fitprune.Trace`; `scoring_macs`: per layer. Negative when scoring costs more than pruning saves.
    """
    full = [visual_tokens] * text_config.num_hidden_layers
    dense, spent = visual_macs(text_config, full, full), visual_macs(text_config, visual_in, visual_out)
    return 1.0 - (spent + sum(map(int, scoring_macs))) / dense if dense else 0.0
