"""Adaptive average pooling against torch's own, in windows of every view, padding left out."""

import pytest
import torch

from baselines.controls.pool import Pool, pooled
from fitprune import BudgetError, FitPruneError, UnsupportedModel
from tests.reference.pool import pool
from tests.support import families, llava_hr
from tests.support.before_decoder import compare, embedded, places, saved
from tests.support.models import batch, build, prompt

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 4), (5, 6), (4, 7), (6, 7), (6, 2)])
def test_the_averages_on_random_tensors(rows, columns):
    """A whole view, and views of which padding was cut off: on two sides, on all, to one patch, to nothing."""
    generator = torch.Generator().manual_seed(0)
    there = torch.zeros(5, 6, 7, dtype=torch.bool)
    there[0] = True
    there[1, 2:, :5] = True
    there[2, 1:4, 2:5] = True
    there[3, 5, 6] = True
    values = torch.randn(5, 6, 7, 3, generator=generator) * there[..., None]
    means, middle, macs = pooled(values, there, rows, columns)
    count = 0
    for view in range(5):
        expected = pool(values[view], there[view], rows, columns)
        assert middle[view].flatten().nonzero().flatten().tolist() == [patch for patch, _ in expected]
        for patch, mean in expected:
            torch.testing.assert_close(means[view].flatten(0, 1)[patch].double(), mean, rtol=1e-5, atol=1e-6)
            assert there[view].flatten()[patch]
        count += len(expected)
    assert count == int(middle.sum())
    assert 0 < macs <= 5 * 6 * columns * (7 + rows) * 3


def rule_of(model, samples, rows, columns):
    def rule(found, row):
        own, going = places(model, samples[row]), []
        side = round(36**0.5)
        assert len(own) == len(found.visual)
        for view in sorted({view for view, _ in own}):
            values, there = torch.zeros(side, side, found.features.shape[1]), torch.zeros(side, side, dtype=torch.bool)
            index_of = {patch: index for index, (other, patch) in enumerate(own) if other == view}
            for patch, index in index_of.items():
                values[divmod(patch, side)], there[divmod(patch, side)] = found.features[index], True
            going += [(index_of[patch], mean) for patch, mean in pool(values, there, rows, columns)]
        return sorted(going, key=lambda one: one[0])

    return rule


@pytest.mark.parametrize("positions", ["repacked", "kept"])
@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (4, 5)])
def test_in_a_batch(rows, columns, positions):
    model = build("llama-gqa", 3, seed=2)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]
    pruner = Pool(rows, columns, positions=positions)
    compare(model, pruner, samples, lambda side: batch(samples, side), rule_of(model, samples, rows, columns))


def test_tiles_without_their_padding():
    model = families.build("llava_next")
    prompts = [["w1 w2", (60, 40), "w3"], ["w1", (24, 80), "w2", (40, 40), "w3 w4"], ["w5 w6"], ["w1", (90, 20)]]
    made = families.processor("llava_next")
    together, samples = families.inputs(made, prompts), [families.inputs(made, [one]) for one in prompts]
    assert len(embedded(model, samples[0]).visual) == 36 + 8 * 12  # of two by two tiles, four rows are padding
    rule = rule_of(model, samples, 3, 4)
    compare(model, Pool(3, 4), samples, lambda side: together if side == "left" else None, rule)


def test_llava_hr():
    model = llava_hr.build()
    samples = [llava_hr.prompt(parts, seed) for seed, parts in enumerate(llava_hr.SAMPLES)]
    compare(model, Pool(2, 4), samples, lambda side: batch(samples, side), rule_of(model, samples, 2, 4))


@pytest.mark.parametrize("reduction", [0.3, 0.5, 0.7, 0.9])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=1, intermediate_size=1024)
    pruner = Pool.for_reduction(model.config, reduction)
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, [3, "image", 4]))
    # Two passes, along the rows and then along the columns, over 24 × 24 patches.
    assert trace.scoring_macs == [32 * 24 * pruner.columns * (24 + pruner.rows), 0, 0, 0]
    assert saved(model, trace) == pytest.approx(reduction, abs=0.01)


def test_grids_as_square_as_the_budget_allows():
    """63 of 144 tokens would come nearer to 56.2 %, in 7×9 windows; 8×8 come within a point."""
    config = build("llama", 4, patch=2, intermediate_size=4096).config
    assert Pool.for_reduction(config, 0.562) == Pool(8, 8)
    assert Pool.for_reduction(config, 0.5) == Pool(8, 9)


def test_a_budget_between_two_grids_says_what_is_in_reach():
    config = build("llama", 4).config
    with pytest.raises(BudgetError, match=r"pooling cannot save 10\.0%.*reaches 1\d\.\d%") as error:
        Pool.for_reduction(config, 0.1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_towers_of_another_form_are_refused(family):
    model = families.build(family)
    with pytest.raises(UnsupportedModel, match="form"):
        Pool.for_reduction(model.config, 0.5, visual_tokens=36)
    with pytest.raises(UnsupportedModel, match="form"), Pool(2, 2)(model):
        pass


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (7, 2), (2, 7)])
def test_a_grid_that_is_no_reduction(rows, columns):
    with pytest.raises(FitPruneError, match="no reduction of this model's views of 6×6"), Pool(rows, columns)(build()):
        pass


def test_bfloat16():
    model = build("llama", 3, dtype=torch.bfloat16)
    with torch.no_grad(), Pool(3, 4)(model) as trace:
        assert model(**prompt(model, [3, "image", 5])).logits.isfinite().all()
    assert [int(count) for count in trace.visual_in] == [12, 12, 12]


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (-1, -1)])
def test_parameters_outside_their_range(rows, columns):
    with pytest.raises(FitPruneError, match="at least one"):
        Pool(rows, columns)
