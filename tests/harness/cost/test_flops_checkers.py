"""The analytic FLOPs against two independent counters of the same forward: torch's FlopCounterMode and fvcore.

Both are run with attention that they can see: torch's counter gives 0 for the CPU kernel of SDPA (pytorch#195460), and
fvcore has no formula for SDPA. Batches are unpadded, since a counter of kernels counts padding too.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from baselines.controls.dense import Dense
from baselines.registry import get_pruner_class
from fitprune import FitPrune, Pruner, Recipe
from harness.cost.flops import FlopCount, count
from tests.support.flop_checkers import TOLERANCE, fvcore_flops, torch_flops
from tests.support.random_llava import CONFIGS, build, prompts
from tests.support.releases import with_cache

pytestmark = pytest.mark.releases


def attention_flops(cost: FlopCount) -> int:
    return cost.by_operator["vision.attention"] + cost.by_operator["prefill.attention"]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_dense_prefill_agrees_with_flop_counter_mode_in_every_part(name: str, batch: int) -> None:
    model = build(name)
    inputs = prompts(model, [9] * batch)
    cost = count(model, inputs)
    counter = torch_flops(model, **inputs)
    by_module = {module: sum(ops.values()) for module, ops in counter.get_flop_counts().items()}
    root = "LlavaForConditionalGeneration"
    assert cost.total == pytest.approx(counter.get_total_flops(), rel=TOLERANCE)
    assert cost.vision == by_module[f"{root}.model.vision_tower"]
    assert cost.projector == by_module[f"{root}.model.multi_modal_projector"]
    assert cost.by_operator["prefill.lm_head"] == by_module[f"{root}.lm_head"]
    ffn = sum(flops for module, flops in by_module.items() if module.endswith(".mlp") and "language_model" in module)
    assert cost.by_operator["prefill.ffn"] == ffn


@pytest.mark.parametrize("name", ["clip-llama-mha", "clip-llama-gqa"])
def test_dense_prefill_agrees_with_fvcore(name: str) -> None:
    # fvcore works on a traced graph, from which layers that nothing reads are gone: so the tower's last layer is read.
    model = build(name, attention="eager", vision_feature_layer=-1)
    inputs = prompts(model, [9, 9])
    assert count(model, inputs).total == pytest.approx(fvcore_flops(model, inputs), rel=TOLERANCE)


def fitprune(model: nn.Module) -> Pruner:
    return FitPrune(Recipe(drop=[0, 9, 0, 13, 4], visual_tokens=36))


def fitprune_to_none(model: nn.Module) -> Pruner:
    return FitPrune(Recipe(drop=[0, 9, 27, 0, 0], visual_tokens=36))


def of_budget(name: str) -> Callable[[nn.Module], Pruner]:
    return lambda model: get_pruner_class(name).for_reduction(model.config, 0.5)


METHODS = {"fitprune": fitprune, "fitprune-to-none": fitprune_to_none, "dense": lambda model: Dense()}
METHODS |= {name: of_budget(name) for name in ("random", "fastv")}


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("name", ["clip-llama-mha", "clip-llama-gqa", "siglip-qwen2"])
@pytest.mark.parametrize("method", METHODS)
def test_pruned_prefill_agrees_with_flop_counter_mode_scoring_included(method: str, name: str) -> None:
    model = build(name)
    inputs = prompts(model, [9, 9])
    pruner = METHODS[method](model)
    cost = count(model, inputs, pruner)
    with pruner(model):
        seen = torch_flops(model, **inputs).get_total_flops()
    assert cost.total == pytest.approx(seen, rel=TOLERANCE)
    dense = count(model, inputs)
    assert (cost.total < dense.total) == (method != "dense")
    assert (cost.scoring > 0) == (method in ("fitprune", "fitprune-to-none", "fastv"))
    assert cost.vision == dense.vision
    # The scoring is the pruner's, not some other cost of its size.
    assert seen - (cost.total - cost.scoring) == pytest.approx(cost.scoring, rel=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_pruned_decode_agrees_with_flop_counter_mode(method: str) -> None:
    model = build("clip-llama-gqa")
    inputs = prompts(model, [9, 9])
    pruner = METHODS[method](model)
    cache, seen, steps = DynamicCache(), 0, 3
    with pruner(model), torch.no_grad():
        model(**inputs, **with_cache(model, cache), use_cache=True)
        for _ in range(steps):
            counter = torch_flops(model, input_ids=torch.ones(2, 1, dtype=torch.long), **with_cache(model, cache))
            seen += counter.get_total_flops()
    assert count(model, inputs, pruner, new_tokens=1 + steps).decode == seen


def test_tower_layers_that_nothing_reads_are_run_and_counted() -> None:
    read, unread = (build("clip-llama-mha", attention="eager", vision_feature_layer=layer) for layer in (-1, -2))
    inputs = prompts(read, [9])
    dead = fvcore_flops(read, inputs) - fvcore_flops(unread, inputs)
    layer = count(read, inputs).vision - count(read, inputs).by_operator["vision.convolution"]
    assert dead == layer / 3
    assert torch_flops(unread, **inputs).get_total_flops() == torch_flops(read, **inputs).get_total_flops()
    assert count(unread, inputs).total == count(read, inputs).total


def test_attention_of_sdpa_is_counted_on_the_cpu() -> None:
    model = build("clip-llama-gqa", image_size=128)
    inputs = prompts(model, [30])
    cost = count(model, inputs)
    seen = torch_flops(model, **inputs).get_total_flops()
    attention = attention_flops(cost)
    assert attention > 0.4 * cost.total
    assert cost.total == pytest.approx(seen, rel=TOLERANCE)
    # Without attention the figure would be far off, by just what this counter gives when it cannot see the kernel.
    assert seen - (cost.total - attention) == pytest.approx(attention, rel=TOLERANCE)
    blind = torch_flops(model, None, **inputs).get_total_flops()
    assert seen - blind in (0, attention)
    # The eager path sees the same attention in other kernels.
    eager = build("clip-llama-gqa", image_size=128, attention="eager")
    assert torch_flops(eager, **inputs).get_total_flops() == seen


def test_decode_agrees_with_flop_counter_mode() -> None:
    model = build("clip-llama-gqa")
    inputs = prompts(model, [9, 9])
    steps = 4
    cache = DynamicCache()
    with torch.no_grad():
        model(**inputs, **with_cache(model, cache), use_cache=True)
    seen = 0
    for _ in range(steps):
        counter = torch_flops(model, input_ids=torch.ones(2, 1, dtype=torch.long), **with_cache(model, cache))
        seen += counter.get_total_flops()
    cost = count(model, inputs, new_tokens=1 + steps)
    assert cost.decode == pytest.approx(seen, rel=TOLERANCE)
