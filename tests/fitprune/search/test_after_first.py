"""What a run at one alpha starts from: what left the first layer of the unpruned model."""

import pytest
import torch

from fitprune.models.parts import model_parts
from fitprune.search import drop_counts
from fitprune.search.prompts import embed
from fitprune.search.runs import counts, measure
from tests.support import families
from tests.support.models import build, prompt

pytestmark = pytest.mark.releases


@pytest.mark.parametrize("family", ["llava_next", "gemma3", "qwen2_5_vl", "qwen3_vl"])
def test_the_second_layer_is_given_what_the_first_one_gives(family):
    """DeepStack's features of the first layer once, not twice."""
    model, processor = families.build(family, seed=1), families.processor(family)
    inputs = families.inputs(processor, [["w1 w2", (30, 20), "w3 w4 w5"], ["w6", (20, 44), "w7 w8"]])
    second, entered = model_parts(model).layers[1], []
    hook = second.register_forward_pre_hook(
        lambda _, args, kwargs: entered.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs, use_cache=False)
    cross, own, _, after = measure(model, embed(model, inputs))
    dropped = counts(model, after, 0.0, cross, own)
    hook.remove()
    plain, measured, run = entered
    real = inputs["attention_mask"].bool()
    assert not dropped.any()
    torch.testing.assert_close(measured[real], plain[real])
    assert torch.equal(run, measured)


@pytest.mark.parametrize("alpha", [0.05, 1.0])
def test_a_decoder_of_one_layer(alpha):
    model = build("llama", 1, seed=3)
    dropped = drop_counts(model, [prompt(model, [4, "image", 5])], alpha)
    assert dropped.tolist() == [[1 if alpha < 1 else 36]]
