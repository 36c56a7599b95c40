"""Downsampling: the tower on a smaller picture, by itself, and the decoder on what it gives."""

import pytest
import torch

from baselines.controls.downsample import Downsample
from fitprune import BudgetError, FitPruneError, UnsupportedModel
from harness.cost.flops import count
from tests.support import families, llava_hr
from tests.support.before_decoder import compare, places, saved
from tests.support.flop_checkers import torch_flops
from tests.support.models import batch, build, prompt

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


def cubic(old, new):
    """Matrix (new, old) of PIL's bicubic reduction: Keys' cubic with a = -1/2, as wide as the step."""
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        for j in range(old):
            distance = abs(j + 0.5 - (i + 0.5) * old / new) / max(old / new, 1)
            if distance < 1:
                matrix[i, j] = 1.5 * distance**3 - 2.5 * distance**2 + 1
            elif distance < 2:
                matrix[i, j] = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return matrix / matrix.sum(1, keepdim=True)


def reduced(pixels, size):
    rows, columns = (cubic(old, new) for old, new in zip(pixels.shape[-2:], size, strict=True))
    return (rows @ pixels.double() @ columns.T).to(pixels.dtype)


def middle(cell, cells, side):
    """The patch of a full side in the middle of a cell of the coarse one, the later of two."""
    return int((cell + 0.5) * side / cells)


def rule_of(model, samples, rows, columns, encode, side=6):
    """What goes on of a sample: the smaller views' embeddings, named by the patches in their middles that are in the prompt."""

    def rule(found, row):
        own, going = {place: index for index, place in enumerate(places(model, samples[row]))}, []
        with torch.no_grad():
            embeds = encode(samples[row]["pixel_values"])
        for view, vectors in enumerate(embeds):
            for cell, vector in enumerate(vectors):
                at = middle(cell // columns, rows, side) * side + middle(cell % columns, columns, side)
                if (view, at) in own:
                    going.append((own[view, at], vector))
        return sorted(going, key=lambda one: one[0])

    return rule


def through_clip(model, size):
    def encode(pixels):
        small = reduced(pixels.flatten(0, -4), size)
        output = model.model.vision_tower(small, interpolate_pos_encoding=True, output_hidden_states=True)
        return model.model.multi_modal_projector(output.hidden_states[model.config.vision_feature_layer][:, 1:])

    return encode


@pytest.mark.parametrize("positions", ["repacked", "kept"])
@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 5), (6, 1)])
def test_in_a_batch(rows, columns, positions):
    model = build("llama-gqa", 3, seed=2)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]
    pruner = Downsample(rows, columns, 36, positions=positions)
    rule = rule_of(model, samples, rows, columns, through_clip(model, (4 * rows, 4 * columns)))
    compare(model, pruner, samples, lambda side: batch(samples, side), rule)


def test_tiles_row_by_row_without_their_padding():
    model = families.build("llava_next")
    prompts = [["w1 w2", (60, 40), "w3"], ["w1", (40, 40), "w3 w4"], ["w5 w6"]]
    made = families.processor("llava_next")
    together, samples = families.inputs(made, prompts), [families.inputs(made, [one]) for one in prompts]
    rule = rule_of(model, samples, 3, 4, through_clip(model, (12, 16)))
    compare(model, Downsample(3, 4, 36), samples, lambda side: together if side == "left" else None, rule)


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 5), (5, 1)])
def test_llava_hr_sees_it_with_both_branches(rows, columns):
    """64 pixels are six tokens a side: a smaller picture has no whole number of pixels a token."""
    model = llava_hr.build()
    samples = [llava_hr.prompt(parts, seed) for seed, parts in enumerate(llava_hr.SAMPLES)]
    size = (round(64 * rows / 6), round(64 * columns / 6))

    def encode(pixels):
        return model.model.multi_modal_projector(model.model.vision_tower(reduced(pixels, size)))

    rule = rule_of(model, samples, rows, columns, encode)
    compare(model, Downsample(rows, columns, 36), samples, lambda side: batch(samples, side), rule)


@pytest.mark.parametrize("build_one", [build, llava_hr.build])
def test_the_tower_costs_less_too(build_one):
    model = build_one()
    sample = prompt(model, [3, "image", 5]) if build_one is build else llava_hr.prompt([3, "image", 5])
    pruner = Downsample(3, 4, 36)
    cost, full = count(model, sample, pruner), count(model, sample)
    with torch.no_grad(), pruner(model):
        seen = torch_flops(model, **sample).get_total_flops()
    assert cost.vision < 0.6 * full.vision
    assert cost.projector == full.projector * 12 // 36
    # LLaVA-HR's adapters resample by products that are no multiply-accumulates of the model.
    assert cost.total == pytest.approx(seen, rel=1e-3)


@pytest.mark.parametrize("reduction", [0.3, 0.5, 0.7, 0.9])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=1, intermediate_size=1024)
    with torch.no_grad(), Downsample.for_reduction(model.config, reduction)(model) as trace:
        model(**prompt(model, [3, "image", 4]))
    assert trace.scoring_macs == [0] * 4
    assert saved(model, trace) == pytest.approx(reduction, abs=0.01)


def test_for_reduction_on_other_models():
    assert Downsample.for_reduction(llava_hr.build().config, 0.55).visual_tokens == 36
    config = families.build("llava_next").config
    assert Downsample.for_reduction(config, 0.56, visual_tokens=150).visual_tokens == 36
    with pytest.raises(BudgetError, match="visual_tokens="):
        Downsample.for_reduction(config, 0.56)


def test_a_budget_between_two_grids_says_what_is_in_reach():
    with pytest.raises(BudgetError, match=r"downsampling cannot save 10\.0%.*reaches 1\d\.\d%") as error:
        Downsample.for_reduction(build("llama", 4).config, 0.1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_towers_of_another_form_are_refused(family):
    model = families.build(family)
    with pytest.raises(UnsupportedModel, match="form"):
        Downsample.for_reduction(model.config, 0.5, visual_tokens=36)
    with pytest.raises(UnsupportedModel, match="form"), Downsample()(model):
        pass


def test_a_grid_of_another_model_is_refused():
    with pytest.raises(FitPruneError, match=r"6×6 patches.*visual_tokens=36"), Downsample(12, 12)(build()):
        pass
    with pytest.raises(FitPruneError, match="nothing is reduced"), Downsample(6, 6, 36)(build()):
        pass


def test_bfloat16():
    model = build("llama", 3, dtype=torch.bfloat16)
    with torch.no_grad(), Downsample(3, 4, 36)(model) as trace:
        assert model(**prompt(model, [3, "image", 5])).logits.isfinite().all()
    assert [int(layer) for layer in trace.visual_in] == [12, 12, 12]


@pytest.mark.parametrize("options", [(0, 3), (3, 0), (25, 3), (3, 25), (3, 3, 35), (3, 3, -1)])
def test_parameters_outside_their_range(options):
    with pytest.raises(FitPruneError, match="no reduction"):
        Downsample(*options)
