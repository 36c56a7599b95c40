"""FasterVLM against its literal rule, and against the unpruned decoder on the shorter prompt."""

import pytest
import torch

from baselines.before_decoder.fastervlm import FasterVLM
from fitprune import BudgetError, FitPruneError, UnsupportedModel
from tests.reference.fastervlm import fastervlm
from tests.support import families
from tests.support.models import batch, build, new_tokens, prompt
from tests.support.shortened import check, layers_of, llava, measured, tiled, without_cls

pytestmark = pytest.mark.releases


def rule(pruner, layers):
    def choose(seen, n):
        keep = round(n * pruner.visual_token_num / pruner.visual_tokens)
        return fastervlm(seen.attention(pruner.layer % layers), keep), None, ()

    return choose


@pytest.mark.parametrize(("keep", "layer"), [(144, -2), (288, -1), (16, -2)])
@pytest.mark.parametrize("case", [llava, tiled, without_cls])
def test_a_batch_against_the_literal_rule(case, keep, layer):
    case = case()
    pruner = FasterVLM(keep, layer=layer)
    check(case, pruner, rule(pruner, layers_of(case.model)))


def test_positions_may_be_kept():
    model = build("llama", 3, seed=4)
    inputs = prompt(model, [3, "image", 5], seed=1)
    logits = []
    for positions in ("kept", "repacked"):
        with torch.no_grad(), FasterVLM(144, positions=positions)(model) as trace:
            logits.append(model(**inputs).logits)
    assert logits[0].shape == logits[1].shape
    assert not torch.allclose(logits[0][0, -1], logits[1][0, -1], atol=1e-3)
    assert int(trace.visual_in[0]) == 9


def test_bfloat16():
    model = build("llama-gqa", 3, seed=2, dtype=torch.bfloat16)
    inputs = batch([prompt(model, [3, "image", 5]), prompt(model, [2, "image", 1, "image", 4], seed=1)])
    with torch.no_grad(), FasterVLM(144)(model) as trace:
        tokens = new_tokens(model, inputs, 3)
    assert tokens.shape == (2, 3)
    assert [int(count) for count in trace.visual_in[0]] == [9, 18]


@pytest.mark.parametrize("reduction", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=2)
    pruner = FasterVLM.for_reduction(model.config, reduction)
    assert pruner.visual_tokens == 144
    assert measured(model, pruner, prompt(model, [3, "image", 4])) == pytest.approx(reduction, abs=0.01)


def test_without_cls_the_costlier_attention_is_paid_for_and_noted():
    case = without_cls()
    pruner = FasterVLM.for_reduction(case.model.config, 0.4)
    # A step of one of 36 tokens is more than a point.
    assert measured(case.model, pruner, case.samples[0]) == pytest.approx(0.4, abs=0.02)
    assert pruner.notes(case.model) == [
        "fastervlm: no [CLS] in this vision tower, so its patches are ranked by the mean attention they receive"
    ]
    assert pruner.notes(build("llama", 2)) == []


@pytest.mark.parametrize("options", [{"visual_token_num": 577}, {"visual_token_num": -1}, {"visual_tokens": 0}])
def test_counts_that_cannot_be(options):
    with pytest.raises(FitPruneError, match="visual_token_num") as error:
        FasterVLM(**options)
    assert "\n" not in str(error.value)


def test_refusals():
    model = build("llama", 2)
    with pytest.raises(FitPruneError, match="tower layer -3; this tower has 2 layers"), FasterVLM(layer=-3)(model):
        pass
    with pytest.raises(BudgetError, match="reaches 9"):
        FasterVLM.for_reduction(model.config, 0.9999)


def test_a_tower_of_another_form_has_no_budget():
    config = families.build("internvl", 2).config
    with pytest.raises(BudgetError, match="FasterVLM cannot run here: the vision tower of a internvl model"):
        FasterVLM.for_reduction(config, 0.5)
    with pytest.raises(UnsupportedModel, match="CLIP or SigLIP"), FasterVLM()(families.build("internvl", 2)):
        pass
