"""The host never waits: no method asks the device for more numbers than promised, in any family, padded or not."""

import pytest
import torch

from baselines.registry import PRUNERS
from fitprune import FitPrune, FitPruneError, Recipe
from tests.support import families
from tests.support.methods import method
from tests.support.models import batch, build, prompt
from tests.support.waits import Waits, of_decoding, of_prefill

LAYERS = 5
FAMILIES = ("llava", *families.FAMILIES)
# Waits beyond those of the model itself.
ALLOWED = {"dense": 4, "fitprune": 4}
OTHERS = 10
# Operations of the pruner that prunes nothing: in tiled models newlines are looked for.
DENSE_OPERATIONS = 55


def model_and_inputs(family, padded):
    if family == "llava":
        model = build("llama-gqa", LAYERS, seed=2)
        samples = [[3, "image", 5, 7, 8], ["image", 2]][: 1 + padded]
        return model, batch([prompt(model, parts, seed) for seed, parts in enumerate(samples)])
    model = families.build(family, LAYERS, seed=1)
    texts = [["w1 w2", (40, 20), "w3 w4 w5 w6"], ["w6", (44, 48)]][: 1 + padded]
    return model, families.inputs(families.processor(family), texts)


@pytest.fixture(scope="module", params=[(family, padded) for family in FAMILIES for padded in (False, True)], ids=str)
def prefill(request):
    """A model, its inputs, and the waits and operations of the dense prefill; of a decoded token too, where these inputs do."""
    model, inputs = model_and_inputs(*request.param)
    decoded = of_decoding(model, inputs) if request.param[0] == "llava" else None
    return model, inputs, of_prefill(model, inputs), decoded


@pytest.mark.parametrize("name", PRUNERS)
def test_no_method_waits_for_more_than_promised(prefill, name):
    model, inputs, dense, token = prefill
    try:
        pruner = method(name, model, "kept")
        pruner.require(model)
    except FitPruneError as error:
        pytest.skip(str(error))
    except StopIteration:
        pytest.skip(f"{name} reaches no budget that is tried on five layers")
    waits, operations = of_prefill(model, inputs, pruner)
    assert waits - dense[0] <= ALLOWED.get(name, OTHERS)
    if name == "dense":
        assert operations - dense[1] <= DENSE_OPERATIONS
    if token is not None:
        assert of_decoding(model, inputs, pruner)[0] == token[0]


def test_waits_do_not_grow_with_the_layers():
    """FitPrune drops in every layer, and knows on the host how many are left."""
    counted = []
    for layers in (4, 12):
        model = build("llama-gqa", layers, seed=2)
        inputs = batch([prompt(model, parts, seed) for seed, parts in enumerate([[3, "image", 5, 7, 8], ["image", 2]])])
        pruner = FitPrune(Recipe([0] + [2] * (layers - 1), 36))
        counted.append(of_prefill(model, inputs, pruner)[0] - of_prefill(model, inputs)[0])
    assert counted[0] == counted[1]


def test_what_waits_is_counted():
    values = torch.arange(6)
    with Waits() as counted:
        int(values[0])
        bool((values > 2).any())
        values.tolist()
        values[values > 2]
        values.nonzero()
        values.sum()
    assert counted.waits == 5
    assert counted.operations > 5
