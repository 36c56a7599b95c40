"""SCOPE against its literal rule: salience times what a patch adds to the coverage."""

import math

import pytest
import torch

from baselines.before_decoder.scope import SCOPE, covering
from fitprune import BudgetError, FitPruneError, UnsupportedModel
from tests.reference.scope import scope
from tests.support import families, llava_hr
from tests.support.before_decoder import compare, places, saved, tiling
from tests.support.models import batch, build, kept, prompt

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_the_choice_on_random_tensors(alpha):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 30, 6, generator=generator)
    salience = torch.rand(3, 30, generator=generator) + 0.05
    there = torch.rand(3, 30, generator=generator) < torch.tensor([[2.0], [0.6], [0.3]])
    keep = torch.tensor([12, 5, 0])
    found = covering(features, salience**alpha, there, keep)
    for view in range(3):
        own = there[view].nonzero().flatten()
        expected, lead = scope(features[view, own], salience[view, own], int(keep[view]), alpha)
        assert lead > 1e-5
        assert found[view].nonzero().flatten().tolist() == own[expected].tolist()


def seen(model, sample):
    """What the tower itself gives: features and salience of every view, by its own attention weights."""
    pixels = sample["pixel_values"]
    if pixels.ndim == 5:
        views = [1 + math.prod(tiling(model, size)) for size in sample["image_sizes"].tolist()]
        pixels = torch.cat([own[:count] for own, count in zip(pixels, views, strict=True)])
    with torch.no_grad():
        output = model.model.vision_tower(pixels, output_hidden_states=True, output_attentions=True)
    features = output.hidden_states[model.config.vision_feature_layer][:, 1:]
    return features, output.attentions[-2][:, :, 0, 1:].sum(1)


def rule_of(model, samples, share):
    """What SCOPE keeps: of each view, its share of the patches that are in the prompt."""

    def rule(found, row):
        features, salience = seen(model, samples[row])
        own, going = places(model, samples[row]), []
        for view in range(len(features)):
            mine = [(index, patch) for index, (other, patch) in enumerate(own) if other == view]
            patches = [patch for _, patch in mine]
            chosen, lead = scope(features[view, patches], salience[view, patches], round(share * len(mine)))
            assert lead > 1e-6
            going += [(mine[index][0], None) for index in chosen]
        return sorted(going, key=lambda one: one[0])

    return rule


@pytest.mark.parametrize("positions", ["repacked", "kept"])
def test_in_a_batch(positions):
    model = build("llama-gqa", 3, seed=2, attention="eager")
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]
    pruner = SCOPE(8, visual_tokens=36, positions=positions)
    compare(model, pruner, samples, lambda side: batch(samples, side), rule_of(model, samples, 8 / 36))


def test_tiles_without_their_padding():
    model = families.build("llava_next", attention="eager")
    prompts = [["w1 w2", (60, 40), "w3"], ["w1", (24, 80), "w2", (40, 40), "w3 w4"], ["w5 w6"]]
    made = families.processor("llava_next")
    together, samples = families.inputs(made, prompts), [families.inputs(made, [one]) for one in prompts]
    rule = rule_of(model, samples, 12 / 36)
    compare(model, SCOPE(12, visual_tokens=36), samples, lambda side: together if side == "left" else None, rule)


def test_without_cls_it_is_the_attention_received_and_the_result_says_so():
    model = llava_hr.build(attention="eager")
    sample = llava_hr.prompt(llava_hr.SAMPLES[0], 0)
    assert "no [CLS]" in SCOPE().notes(model)[0]
    assert SCOPE().notes(build()) == []
    tower, maps = model.model.vision_tower, []
    attention = tower.fast.encoder.layers[-2].self_attn
    hook = attention.register_forward_hook(lambda module, args, output: maps.append(output[1]))
    with torch.no_grad():
        features = tower(sample["pixel_values"])
    hook.remove()
    salience = maps[0].mean((1, 2))
    count = features.shape[1]
    chosen, lead = scope(features[0], salience[0], count // 3)
    assert lead > 1e-6
    with torch.no_grad(), SCOPE(count // 3, visual_tokens=count)(model) as trace:
        model(**sample)
    assert kept(trace)[0][: count // 3] == chosen


@pytest.mark.parametrize("reduction", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=2)
    pruner = SCOPE.for_reduction(model.config, reduction)
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, [3, "image", 4]))
    assert trace.scoring_macs == [144**2 * 16 + 145 * 16, 0, 0, 0]
    assert saved(model, trace) == pytest.approx(reduction, abs=0.01)


def test_for_reduction_without_cls():
    model = llava_hr.build()
    sample = llava_hr.prompt(llava_hr.SAMPLES[0], 0)
    pruner = SCOPE.for_reduction(model.config, 0.4)
    with torch.no_grad(), pruner(model) as trace:
        model(**sample)
    assert saved(model, trace) == pytest.approx(0.4, abs=0.03)


def test_a_budget_out_of_reach_says_what_is_in_reach():
    with pytest.raises(BudgetError, match=r"SCOPE cannot save 99\.0%.*reaches 9\d\.\d%"):
        SCOPE.for_reduction(build("llama", 4, patch=2).config, 0.99)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_towers_of_another_form_are_refused(family):
    model = families.build(family)
    with pytest.raises(UnsupportedModel, match="form"):
        SCOPE.for_reduction(model.config, 0.5, visual_tokens=36)
    with pytest.raises(UnsupportedModel, match="form"), SCOPE()(model):
        pass


def test_bfloat16():
    model = build("llama", 3, dtype=torch.bfloat16)
    with torch.no_grad(), SCOPE(9, visual_tokens=36)(model) as trace:
        assert model(**prompt(model, [3, "image", 5])).logits.isfinite().all()
    assert [len(layer) for layer in kept(trace)] == [9, 9, 9]


@pytest.mark.parametrize("options", [{"num_token": 577}, {"num_token": -1}, {"alpha": -1}])
def test_parameters_outside_their_range(options):
    with pytest.raises(FitPruneError):
        SCOPE(**options)
