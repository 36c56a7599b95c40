"""The fit: its rule at one alpha against the literal one, and the budgets that its recipes reach."""

import itertools

import pytest
import torch

from fitprune import BudgetError, Calibration, FitPrune, FitPruneError, Recipe, fit
from fitprune.flops import visual_macs
from fitprune.search import drop_counts
from tests.reference import fitting
from tests.support.models import DECODERS, batch, build, kept, prompt

pytestmark = pytest.mark.releases
ALPHAS = [0.0, 0.02, 0.1, 0.3, 0.7, 1.0]
BUDGETS = [pytest.param(step / 20, marks=[pytest.mark.exhaustive] * (step % 4 != 1)) for step in range(1, 20)]


@pytest.mark.parametrize(
    "kind", [kind if kind == "llama-gqa" else pytest.param(kind, marks=pytest.mark.exhaustive) for kind in DECODERS]
)
def test_drop_counts_against_the_literal_rule(kind):
    """Sample by sample and layer by layer; padded, with one and two images in one batch."""
    model = build(kind, 4, seed=8)
    samples = [
        prompt(model, parts, seed) for seed, parts in enumerate([[3, "image", 5], [2, "image", "image", 1], ["image", 9]])
    ]
    masses = [fitting.totals(model, sample) for sample in samples]
    seen = set()
    for alpha in ALPHAS:
        counts = drop_counts(model, [batch(samples[:2]), samples[2]], alpha)
        expected = [fitting.drops(model, sample, alpha, mass) for sample, mass in zip(samples, masses, strict=True)]
        assert counts.dtype == torch.long
        assert counts.tolist() == expected, f"alpha {alpha}"
        seen.add(str(expected))
    assert len(seen) == len(ALPHAS)


def test_drop_counts_at_the_ends():
    model = build("llama", 3)
    samples = [prompt(model, [3, "image", 5], seed) for seed in range(2)]
    assert drop_counts(model, samples, 0).tolist() == [[0, 0, 0]] * 2
    assert drop_counts(model, samples, 1).tolist() == [[36, 0, 0]] * 2
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(FitPruneError, match="alpha"):
            drop_counts(model, samples, alpha)


def test_drop_counts_do_not_depend_on_the_batch():
    model = build("qwen2", 4, seed=1)
    samples = [prompt(model, [2 + seed, "image", 9 - seed], seed) for seed in range(6)]
    one_by_one = drop_counts(model, samples, 0.2)
    assert torch.equal(drop_counts(model, [batch(samples)], 0.2), one_by_one)
    assert torch.equal(drop_counts(model, (batch(samples[i : i + 4]) for i in (0, 4)), 0.2), one_by_one)


@pytest.mark.parametrize("reduction", [0.2, 0.5])
def test_fit_against_the_published_procedure(reduction):
    """On one sample there is nothing to average: alpha is the published one, and only the last rounding differs."""
    model = build("llama", 6, seed=3)
    sample = prompt(model, [3, "image", 5], seed=4)
    sizes = (36, 32, 72)
    _, (alpha, drop) = fitting.published_fit(model, [sample], *sizes, reduction)
    recipe = fit(model, [sample], reduction, progress=False)
    assert recipe.provenance["alpha"] == alpha
    dense = fitting.cost([0] * 6, *sizes)
    assert reduction <= recipe.reduction <= 1 - fitting.cost(drop, *sizes) / dense
    left, published = list(itertools.accumulate(recipe.drop)), list(itertools.accumulate(drop))
    assert all(ours <= theirs for ours, theirs in zip(left, published, strict=True))
    # The scale is near 1, so the shape is the published one.
    assert max(theirs - ours for ours, theirs in zip(left, published, strict=True)) <= 4


@pytest.mark.exhaustive
def test_fit_reaches_what_floor_averaging_misses():
    model = build("llama", 4, seed=3)
    samples = [prompt(model, [3, "image", 5], seed) for seed in range(3)]
    (_, last), _ = fitting.published_fit(model, samples, 36, 32, 72, 0.4)
    published = 1 - fitting.cost(last, 36, 32, 72) / fitting.cost([0] * 4, 36, 32, 72)
    assert published < 0.4 <= fit(model, samples, 0.4, progress=False).reduction


@pytest.fixture(scope="module")
def deep():
    return build("llama", 8, patch=2, seed=7, intermediate_size=256)


@pytest.fixture(scope="module")
def deep_samples(deep):
    return [prompt(deep, [4, "image", 4 + seed], seed) for seed in range(4)]


@pytest.fixture(scope="module")
def calibration(deep, deep_samples):
    return Calibration(deep, [batch(deep_samples)], progress=False)


@pytest.mark.parametrize("reduction", BUDGETS)
def test_every_budget_is_reached_and_not_by_much(calibration, reduction):
    recipe = calibration.recipe(reduction)
    sizes = (144, 32, 256)
    dense = fitting.cost([0] * 8, *sizes)
    reached = 1 - fitting.cost(recipe.drop, *sizes) / dense
    assert reduction <= reached < reduction + 0.01
    assert recipe.reduction == pytest.approx(reached, abs=1e-12)
    assert recipe.visual_tokens == 144
    assert sum(recipe.drop) <= 144


@pytest.mark.parametrize("reduction", [0.1, 0.5, 0.9])
def test_alpha_is_the_smallest(calibration, reduction):
    """Every smaller multiple of 1/128 is tried, with a stop and a cost of the test's own."""
    sizes = (144, 32, 256)
    budget = (1 - reduction) * fitting.cost([0] * 8, *sizes)
    chosen = round(calibration.recipe(reduction).provenance["alpha"] * 128)

    def reaches(step):
        counts = fitting.stopped(calibration.drop_counts(step).tolist(), budget, *sizes)
        return sum(fitting.cost(one, *sizes) for one in counts) / len(counts) <= budget

    assert reaches(chosen)
    # Near the choice every step, further down every eighth.
    steps = {*range(max(chosen - 6, 0), chosen), *range(0, chosen, 8)}
    assert not [step for step in sorted(steps) if reaches(step)]


def test_budgets_beyond_reach(calibration):
    dense = fitting.cost([0] * 8, 144, 32, 256)
    most = 1 - fitting.cost([144] + [0] * 7, 144, 32, 256) / dense
    with pytest.raises(BudgetError, match=f"{most:.1%}") as error:
        calibration.recipe(0.99)
    assert "\n" not in str(error.value)
    assert calibration.recipe(most - 1e-6).drop == [144] + [0] * 7


def test_fit_is_calibration_and_repeatable(deep, deep_samples, calibration):
    recipe = fit(deep, iter([batch(deep_samples)]), 0.5, progress=False)
    assert recipe.drop == calibration.recipe(0.5).drop == calibration.recipe(0.5).drop
    assert fit(deep, deep_samples, 0.5, progress=False).drop == recipe.drop


@pytest.mark.parametrize("reduction", [0.2, 0.4, 0.6, 0.8])
def test_for_reduction_counts_the_scoring(deep, deep_samples, calibration, reduction):
    """Measured from the trace, scoring included, within a point of what was asked, below and above."""
    pruner = FitPrune.for_reduction(deep.config, reduction, calibration=calibration)
    sizes = {"hidden_size": 32, "intermediate_size": 256}
    spent = dense = 0
    for sample in deep_samples:
        with torch.no_grad(), pruner(deep) as trace:
            deep(**sample)
        entered = [int(count) for count in trace.visual_in]
        left = [int(count) for count in trace.visual_out]
        spent += visual_macs([a - b for a, b in zip(entered, left, strict=True)], 144, **sizes) + sum(trace.scoring_macs)
        dense += visual_macs([0] * 8, 144, **sizes)
    assert 1 - spent / dense == pytest.approx(reduction, abs=0.01)


def test_for_reduction_on_a_model_and_its_batches(deep, deep_samples):
    pruner = FitPrune.for_reduction(deep.config, 0.5, model=deep, batches=deep_samples)
    assert sum(pruner.recipe.drop) > 0
    with torch.no_grad(), pruner(deep) as trace:
        deep(**deep_samples[0])
    assert 144 - len(kept(trace)[-1]) == sum(pruner.recipe.drop)


def test_for_reduction_with_nothing_to_calibrate_on(deep):
    with pytest.raises(BudgetError, match="recipe="):
        FitPrune.for_reduction(deep.config, 0.5)
    with pytest.raises(FitPruneError, match="4 layers"):
        FitPrune.for_reduction(deep.config, 0.5, recipe=Recipe([1, 2, 3, 4], 144))


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5])
def test_one_pass_against_the_literal_rule(alpha):
    model = build("qwen2", 5, seed=8)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate([[3, "image", 5], ["image", "image", 4]])]
    calibration = Calibration(model, [batch(samples)], mode="one-pass", progress=False)
    step = round(alpha * 128)
    expected = [fitting.one_pass_drops(model, sample, step / 128) for sample in samples]
    assert calibration.drop_counts(step).tolist() == expected


@pytest.mark.parametrize("reduction", [0.05, 0.5, 0.9])
def test_one_pass_reaches_its_budgets(deep, deep_samples, reduction):
    recipe = fit(deep, deep_samples, reduction, mode="one-pass", progress=False)
    assert reduction <= recipe.reduction < reduction + 0.01
    assert recipe.provenance["mode"] == "one-pass"


def test_what_cannot_be_fitted(deep, deep_samples):
    with pytest.raises(FitPruneError, match="no calibration samples"):
        fit(deep, [], 0.5, progress=False)
    with pytest.raises(FitPruneError, match="no visual tokens"):
        fit(deep, [prompt(deep, [7])], 0.5, progress=False)
    with pytest.raises(FitPruneError, match="sequential"):
        fit(deep, deep_samples, 0.5, mode="sequentia", progress=False)
    for reduction in (0, 1, -1, 60, "0.5", True, None, float("nan")):
        with pytest.raises(FitPruneError, match="between 0 and 1"):
            fit(deep, deep_samples, reduction, progress=False)


def test_fitting_leaves_the_model_as_it_was(deep, deep_samples):
    with torch.no_grad():
        before = deep(**deep_samples[0]).logits
        fit(deep, deep_samples[:2], 0.5, progress=False)
        assert torch.equal(deep(**deep_samples[0]).logits, before)
    assert all(parameter.grad is None for parameter in deep.parameters())
    assert not deep.training
