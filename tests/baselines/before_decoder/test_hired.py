"""HiRED against its literal rule, on random tensors and in models."""

import pytest
import torch

from baselines.before_decoder.hired import HiRED, choose, tile_votes
from fitprune import BudgetError, FitPruneError
from tests.reference.hired import budgets, hired
from tests.support import families
from tests.support.models import batch, build, new_tokens, prompt
from tests.support.shortened import check, layers_of, llava, measured, tiled, without_cls

pytestmark = pytest.mark.releases


@pytest.mark.parametrize(
    ("rate", "alpha"), [(0.2, 0.5), (0.4, 0.25), (0.9, 0.5), (0.5, 1.0), (0.3, 0.0), (1.0, 0.5), (0.0, 0.5)]
)
def test_random_tensors_against_the_literal_rule(rate, alpha):
    """Two prompts: an image with four tiles, some of their patches cut off; one with two and one with none."""
    generator = torch.Generator().manual_seed(5)
    base = [0, 0, 0, 0, 0, 5, 5, 5, 8]
    first = torch.rand(9, 36, generator=generator, dtype=torch.float64)
    prompts = [[0] * 36 + [1] * 20 + [2] * 36 + [3] * 5 + [4] * 36, [5] * 36 + [6] * 30 + [7] * 36 + [8] * 36]
    view = torch.full((2, 138), -1)
    final = torch.zeros(2, 138, dtype=torch.float64)
    for row, views in enumerate(prompts):
        view[row, : len(views)] = torch.tensor(views)
        final[row, : len(views)] = torch.rand(len(views), generator=generator, dtype=torch.float64)
    votes = tile_votes(first, torch.tensor(base), alpha)
    mask = choose(final, view, torch.tensor(base), votes, rate, alpha)
    for row, views in enumerate(prompts):
        expected, authors = hired(final[row, : len(views)], views, base, first, rate, alpha)
        assert mask[row].nonzero()[:, 0].tolist() == expected
        assert set(authors) <= set(expected)
        images = [views[:133]] if row == 0 else [views[:102], views[102:]]
        assert len(expected) == sum(int(len(image) * rate + 1e-9) for image in images)


def test_where_nothing_is_cut_off_the_counts_are_the_authors():
    first = torch.zeros(576)
    # Of 288 chosen patches the four runs of 144 have 144, 72, 36 and 36.
    for run, count in enumerate([144, 72, 36, 36]):
        first[run * 144 : run * 144 + count] = 1 + torch.rand(count, generator=torch.Generator().manual_seed(run))
    exact, authors = budgets(first, 4, [576] * 5, rate=1 / 9, alpha=0.5)
    assert exact == authors == [160, 80, 40, 20, 20]


def rule(pruner, layers):
    def choose_of(seen, n):
        final = seen.attention(pruner.final_layer % layers).sum(0)
        views = range(len(seen.views))
        first = torch.stack([seen.map(pruner.first_layer % layers, view, seen.heads).sum(0) for view in views])
        view = [view for view, _ in seen.token]
        return hired(final, view, seen.first, first, pruner.token_budget_rate, pruner.alpha)[0], None, ()

    return choose_of


@pytest.mark.parametrize("options", [{}, {"token_budget_rate": 0.6, "alpha": 0.3, "first_layer": -1, "final_layer": 0}])
@pytest.mark.parametrize("case", [llava, tiled, without_cls])
def test_a_batch_against_the_literal_rule(case, options):
    case = case()
    pruner = HiRED(**options)
    check(case, pruner, rule(pruner, layers_of(case.model)))


def test_views_know_the_first_view_of_their_image():
    model, processor = families.build("llava_next", 2), families.processor("llava_next")
    seen = []

    class Looking(HiRED):
        def before_layer(self, layer, tokens):
            seen.append(tokens.vision.base_view.tolist())

    with torch.no_grad(), Looking()(model):
        model(**families.inputs(processor, [["w1", (40, 20)], ["w2", (44, 48), (20, 60)]]))
    # Two tiles, four tiles, three tiles.
    assert seen[0] == [0, 0, 0, 3, 3, 3, 3, 3, 8, 8, 8, 8]
    model, seen[:] = build("llama", 2), []
    with torch.no_grad(), Looking()(model):
        model(**prompt(model, [1, "image", 2, "image", 3]))
    assert seen[0] == [0, 1]


def test_newlines_that_may_be_pruned_all_go():
    model, processor = families.build("llava_next", 3), families.processor("llava_next")
    inputs = families.inputs(processor, [["w1 w2", (40, 20), "w3"]])
    ways = []
    for newlines in ("kept", "pruned"):
        with torch.no_grad(), HiRED(newlines=newlines)(model) as trace:
            model(**inputs)
        ways.append((int(trace.visual_tokens), int(trace.text_tokens), int(trace.visual_in[0])))
    (n, text, entered), (with_newlines, fewer, entered_then) = ways
    assert with_newlines - n == text - fewer > 0
    assert entered == entered_then == int(n * 0.2)


def test_bfloat16():
    model = build("llama-gqa", 3, seed=2, dtype=torch.bfloat16)
    inputs = batch([prompt(model, [3, "image", 5]), prompt(model, [2, "image", 1, "image", 4], seed=1)])
    with torch.no_grad(), HiRED()(model) as trace:
        assert new_tokens(model, inputs, 3).shape == (2, 3)
    # Two images have a budget each.
    assert [int(count) for count in trace.visual_in[0]] == [7, 14]


@pytest.mark.parametrize("reduction", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=2)
    pruner = HiRED.for_reduction(model.config, reduction)
    assert measured(model, pruner, prompt(model, [3, "image", 4])) == pytest.approx(reduction, abs=0.01)


@pytest.mark.parametrize("reduction", [0.3, 0.6, 0.9])
def test_for_reduction_on_tiles(reduction):
    model, processor = families.build("llava_next", 4), families.processor("llava_next")
    inputs = families.inputs(processor, [["w1 w2", (44, 48), "w3"]])
    with torch.no_grad(), HiRED(1.0)(model) as trace:
        model(**inputs)
    pruner = HiRED.for_reduction(model.config, reduction, visual_tokens=int(trace.visual_tokens))
    assert measured(model, pruner, inputs) == pytest.approx(reduction, abs=0.01)


@pytest.mark.parametrize("options", [{"token_budget_rate": 1.1}, {"token_budget_rate": -0.1}, {"alpha": 1.5}])
def test_values_that_cannot_be(options):
    with pytest.raises(FitPruneError, match=next(iter(options))) as error:
        HiRED(**options)
    assert "\n" not in str(error.value)


def test_refusals():
    model = build("llama", 2)
    with pytest.raises(FitPruneError, match="tower layer 5; this tower has 2 layers"), HiRED(first_layer=5)(model):
        pass
    with pytest.raises(BudgetError, match="reaches 9"):
        HiRED.for_reduction(model.config, 0.9999)
    assert HiRED().notes(model) == []
    assert "no [CLS]" in HiRED().notes(without_cls().model)[0]
