"""Models that torch.compile has compiled: what a pruner puts on them runs as it is, also where they ran before without it."""

import pytest
import torch
from torch import nn

from baselines import VisionZip
from fitprune import Composed, FitPrune, Recipe
from fitprune.engine.context import Layer
from fitprune.engine.decoder_hooks import LayerForward
from fitprune.engine.undo import Attachments
from tests.support.models import build, kept, new_tokens, prompt

pytestmark = pytest.mark.releases

# One that looks into the tower, and one that prunes between layers.
PRUNER = Composed([VisionZip(12, 6), FitPrune(Recipe([5, 4], 18))])


@pytest.mark.parametrize("used", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_compiled_layers_are_pruned_as_they_would_be_and_run_unpruned_again(used):
    torch.compiler.reset()
    model = build("llama-gqa", 2, seed=2)
    prompts = [prompt(model, [3, "image", 6, 7], seed=1), prompt(model, [3, 9, "image", 6, 7], seed=3)]

    def answer(inputs):
        with PRUNER(model) as trace:
            return model(**inputs).logits, kept(trace)

    with torch.no_grad():
        dense = model(**prompts[0]).logits
        expected = [answer(inputs) for inputs in prompts]
        for module in [*model.model.language_model.layers, model.model.vision_tower, model.model.multi_modal_projector]:
            module.compile(backend="eager")
        if used:
            assert torch.equal(model(**prompts[0]).logits, dense)
        for inputs, (logits, survivors) in zip(prompts, expected, strict=True):
            got = answer(inputs)
            assert torch.equal(got[0], logits)
            assert got[1] == survivors
        assert torch.equal(model(**prompts[0]).logits, dense)


def test_layers_that_are_compiled_inside_the_context_decode_as_they_would():
    torch.compiler.reset()
    model = build("llama-gqa", 2, seed=2)
    inputs = prompt(model, [3, "image", 6, 7], seed=1)
    with PRUNER(model):
        expected = new_tokens(model, inputs, 3)
        for layer in model.model.language_model.layers:
            layer.compile(backend="eager")
        assert torch.equal(new_tokens(model, inputs, 3), expected)


@pytest.mark.parametrize("way", ["attribute", "hook", "layer"])
def test_nothing_that_is_put_on_a_module_is_traced(way):
    """What was traced for one prompt would be guessed to hold for the next."""
    torch.compiler.reset()
    traced, module, attached = [], nn.Linear(2, 2), Attachments()
    forward = module.forward

    def noting(*args):
        traced.append(torch.compiler.is_compiling())
        return forward(args[-1]) if way != "hook" else None

    if way == "attribute":
        attached.set(module, "forward", noting)
    elif way == "hook":
        attached.hook(module.register_forward_pre_hook, lambda _, args: noting(*args))
    else:
        attached.set(module, "forward", LayerForward(Layer(0, module, noting), lambda: None))
    given = torch.ones(1, 2)
    assert torch.equal(torch.compile(module, backend="eager")(given), forward(given))
    assert traced == [False]
    attached.remove()
