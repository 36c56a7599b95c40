"""ToMe against its literal rule, on random tensors and in the tower."""

import pytest
import torch

from baselines.in_tower.tome import ToMe, even_schedule, matched, merge, schedule
from fitprune import BudgetError, FitPruneError, UnsupportedModel
from fitprune.models.sizes import TowerSizes
from tests.reference.tome import tome, tower
from tests.support import families, llava_hr
from tests.support.before_decoder import compare, saved
from tests.support.models import batch, build, kept, prompt

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


@pytest.mark.parametrize(("count", "has_cls"), [(13, 1), (14, 1), (12, 0), (11, 0)])
@pytest.mark.parametrize("r", [1, 3, 5])
def test_merging_random_tensors(count, has_cls, r):
    generator = torch.Generator().manual_seed(count + r)
    hidden, key = torch.randn(3, count, 8, generator=generator), torch.randn(3, 2, count, 4, generator=generator)
    size = torch.randint(1, 5, (3, count), generator=generator).float()
    seat = torch.arange(count).expand(3, -1) - has_cls
    found = merge(hidden, size, seat, matched(key.mean(1), r, protected=bool(has_cls)))
    for view in range(3):
        expected, sizes, seats, gap = tome(hidden[view], key[view], size[view].tolist(), seat[view].tolist(), r, has_cls)
        assert gap > 1e-5
        assert found.patch_index[view].tolist() == seats
        assert found.size[view].tolist() == sizes
        torch.testing.assert_close(found.hidden[view], expected, rtol=1e-5, atol=1e-5)
    assert (found.patch_index[:, 0] == -1).all() or not has_cls


def rule_of(model, samples, pairs, order):
    def rule(found, row):
        going = []
        for number, pixels in enumerate(samples[row]["pixel_values"]):
            features, seats, gap = tower(model, pixels, pairs)
            assert gap > 1e-6
            with torch.no_grad():
                embeds = model.model.multi_modal_projector(features)
            going += [(36 * number + seat, vector) for seat, vector in zip(seats, embeds, strict=True)]
        return sorted(going, key=lambda one: one[0]) if order == "prompt" else going

    return rule


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("order", ["prompt", "tower"])
@pytest.mark.parametrize(("r", "pairs"), [(4, [4, 4]), ([9, 5], [9, 5]), ([3], [3, 0]), (30, [18, 9])])
def test_in_a_batch(r, pairs, order):
    model = build("llama-gqa", 3, seed=2)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]
    compare(model, ToMe(r, order), samples, lambda side: batch(samples, side), rule_of(model, samples, pairs, order))


def test_positions_may_be_kept():
    model = build("qwen2", 3, seed=3)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]
    pruner = ToMe([9, 5], positions="kept")
    compare(model, pruner, samples, lambda side: batch(samples, side), rule_of(model, samples, [9, 5], "prompt"))


def test_layers_after_the_one_that_is_read_are_of_no_account():
    model = build("llama", 3)
    model.config.vision_feature_layer = -2
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]
    compare(model, ToMe(6), samples, lambda side: batch(samples, side), rule_of(model, samples, [6], "prompt"))


def test_tiles():
    """What is named by padding is not in the prompt; base views are whole."""
    model = families.build("llava_next")
    sample = families.inputs(families.processor("llava_next"), [["w1 w2", (60, 40), "w3"]])
    pairs = [6, 0]
    with torch.no_grad(), ToMe(pairs)(model) as trace:
        model(**sample)
    _, seats, gap = tower(model, sample["pixel_values"][0, 0], pairs)
    assert gap > 1e-6
    base = [index for index in kept(trace)[0] if index < 36]
    assert base == sorted(seats)
    assert 0 < len(kept(trace)[0]) - len(base) < int(trace.visual_tokens) - 36


SIZES = [
    TowerSizes(width=16, layers=23, heads=2, patches=576, tokens=577, feature_layer=22, projector=1),
    TowerSizes(width=16, layers=4, heads=2, patches=144, tokens=145, feature_layer=2, projector=1),
    TowerSizes(width=16, layers=3, heads=2, patches=35, tokens=35, feature_layer=2, projector=1),
]


@pytest.mark.parametrize("sizes", SIZES)
def test_a_schedule_merges_as_many_as_it_is_asked_for_as_evenly_as_it_can(sizes):
    most = sum(even_schedule(sizes, sizes.tokens))
    for merged in range(1, most + 1):
        pairs, present = schedule(sizes, merged), sizes.tokens
        assert sum(pairs) == merged
        assert len(pairs) == sizes.feature_layer + 1
        for count in pairs:
            assert 0 <= count <= (present - sizes.has_cls) // 2
            present -= count
    assert schedule(SIZES[0], 23 * 8 + 5) == [9] * 5 + [8] * 18


@pytest.mark.parametrize("reduction", [0.05, 0.3, 0.5, 0.7])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=2)
    pruner = ToMe.for_reduction(model.config, reduction)
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, [3, "image", 4]))
    assert saved(model, trace) == pytest.approx(reduction, abs=0.01)
    first, second = pruner.r
    left = 145 - first
    # Even against odd tokens, over a head's eight channels.
    assert trace.scoring_macs == [8 * (73 * 72 + (-(-left // 2) * (left // 2) if second else 0)), 0, 0, 0]
    assert trace.tower.projected == 144 - first - second == int(trace.visual_in[0])


def test_a_budget_out_of_reach_says_what_is_in_reach():
    """Two layers leave 36 of 144 patches at least."""
    with pytest.raises(BudgetError, match=r"ToMe cannot save 99\.0%.*reaches \d\d\.\d%\.") as error:
        ToMe.for_reduction(build("llama", 4, patch=2).config, 0.99)
    assert "\n" not in str(error.value)


def test_a_tower_that_mixes_its_grid_between_layers_is_refused():
    with pytest.raises(UnsupportedModel, match="grid"), ToMe()(llava_hr.build()):
        pass


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_towers_of_another_form_are_refused(family):
    model = families.build(family)
    with pytest.raises(UnsupportedModel, match="form"):
        ToMe.for_reduction(model.config, 0.5, visual_tokens=36)
    with pytest.raises(UnsupportedModel, match="form"), ToMe()(model):
        pass


def test_bfloat16():
    model = build("llama", 3, dtype=torch.bfloat16)
    with torch.no_grad(), ToMe([9, 5])(model) as trace:
        assert model(**prompt(model, [3, "image", 5])).logits.isfinite().all()
    assert [len(layer) for layer in kept(trace)] == [22, 22, 22]


@pytest.mark.parametrize("options", [{"r": 0}, {"r": -1}, {"r": []}, {"r": [0, 0]}, {"r": [3, -1]}, {"order": "raster"}])
def test_parameters_outside_their_range(options):
    with pytest.raises(FitPruneError):
        ToMe(**options)
