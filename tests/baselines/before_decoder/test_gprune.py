"""G-Prune against its literal rule: what flows through the graph of similarities, base view and tiles apart."""

import math

import pytest
import torch

from baselines.before_decoder import gprune as gprune_file
from baselines.before_decoder.gprune import GPrune, flow
from fitprune import BudgetError, FitPruneError, UnsupportedModel
from tests.reference.gprune import gprune
from tests.support.before_decoder import compare, embedded, places, saved, tiling
from tests.support.families import build as build_family
from tests.support.families import inputs, processor
from tests.support.models import batch, build, kept, new_tokens, prompt

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


def clustered(n, width, generator):
    """Features with edges among them: a few directions, and noise."""
    centres = torch.randn(5, width, generator=generator)
    picked = torch.randint(0, 5, (n,), generator=generator)
    scale = 0.5 + torch.rand(n, 1, generator=generator)
    return (centres[picked] + 0.6 * torch.randn(n, width, generator=generator)) * scale


@pytest.mark.parametrize("options", [(0.5, 0.03, 5), (0.3, 0.1, 1), (0.7, 0.03, 8)])
def test_the_scores_on_random_tensors(options):
    generator = torch.Generator().manual_seed(0)
    counts = [30, 18, 1]
    features = torch.stack([clustered(30, 8, generator) for _ in counts])
    there = torch.arange(30) < torch.tensor(counts)[:, None]
    found = flow(features, there, *options)
    for row, count in enumerate(counts):
        _, scores, _ = gprune(features[row, :count], 0.5, *options)
        torch.testing.assert_close(found[row, :count], torch.tensor(scores).float(), rtol=1e-4, atol=1e-6)
    assert (found[1] > 0).sum() > 0
    # Edges decide: fewer of them is another score.
    assert float((flow(features, there, 0.99, *options[1:]) - found).abs().max()) > 1e-3


def test_similarities_in_blocks_of_nodes_give_the_same_scores(monkeypatch):
    features = clustered(30, 8, torch.Generator().manual_seed(0)).view(2, 15, 8)
    there = torch.arange(15) < torch.tensor([[15], [9]])
    whole = flow(features, there, 0.5, 0.03, 5)
    monkeypatch.setattr(gprune_file, "BLOCK", 4)
    torch.testing.assert_close(flow(features, there, 0.5, 0.03, 5), whole, rtol=1e-5, atol=1e-7)


def test_in_a_batch_each_picture_is_a_graph():
    model = build("llama-gqa", 3, seed=2)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]

    def rule(found, row):
        going = []
        for first in range(0, len(found.visual), 36):
            chosen, _, gap = gprune(found.features[first : first + 36], 0.3)
            assert gap > 1e-5
            going += [(first + index, None) for index in chosen]
        return going

    compare(model, GPrune(keep_ratio=0.3), samples, lambda side: batch(samples, side), rule)


@pytest.mark.exhaustive
def test_base_view_and_tiles_are_pruned_apart_and_newlines_stay():
    model = build_family("llava_next")
    prompts = [["w1 w2", (60, 40), "w3"], ["w1", (24, 80), "w2", (40, 40), "w3 w4"], ["w5 w6"]]
    together = inputs(processor("llava_next"), prompts)
    samples = [inputs(processor("llava_next"), [one]) for one in prompts]

    def rule(found, row):
        own, going, first = places(model, samples[row]), [], 0
        assert len(own) == len(found.visual)
        for size in samples[row]["image_sizes"].tolist():
            tiles = math.prod(tiling(model, size))
            for views in (range(first, first + 1), range(first + 1, first + 1 + tiles)):
                graph = [index for index, (view, _) in enumerate(own) if view in views]
                chosen, _, gap = gprune(found.features[graph], 0.4)
                assert gap > 1e-6
                going += [(graph[index], None) for index in chosen]
            first += 1 + tiles
        return going

    compare(model, GPrune(keep_ratio=0.4), samples, lambda side: together if side == "left" else None, rule)


def test_newlines_may_go():
    model = build_family("llava_next")
    sample = inputs(processor("llava_next"), [["w1 w2", (60, 40), "w3"]])
    found = embedded(model, sample)
    with torch.no_grad(), GPrune(newlines="pruned")(model) as trace:
        tokens = new_tokens(model, sample, 4)[0].tolist()
        survivors = kept(trace)[0]
    with torch.no_grad(), GPrune()(model) as trace:
        model(**sample)
    image = (sample["input_ids"][0] == model.config.image_token_id).nonzero().flatten().tolist()
    rows = [image[index] for index in survivors]
    assert rows == [found.visual[index] for index in kept(trace)[0]]
    text = [row for row in range(len(found.embeds)) if row not in image]
    left = sorted(text + rows)
    found.embeds, found.visual = found.embeds[left], []
    first = model.get_decoder()(inputs_embeds=found.embeds[None], position_ids=torch.tensor([left])).last_hidden_state
    assert int(model.lm_head(first[0, -1]).argmax()) == tokens[0]


@pytest.mark.parametrize("reduction", [0.05, 0.3, 0.5, 0.7, 0.9])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=2)
    pruner = GPrune.for_reduction(model.config, reduction)
    with torch.no_grad(), pruner(model) as trace:
        model(**prompt(model, [3, "image", 4]))
    assert trace.scoring_macs == [144**2 * (32 + 5), 0, 0, 0]
    assert saved(model, trace) == pytest.approx(reduction, abs=0.01)


def test_for_reduction_with_tiles():
    model = build_family("llava_next", tower={"patch_size": 2})
    sample = inputs(_finer(), [["w1 w2", (60, 40), "w3"]])
    n = len(embedded(model, sample).visual)
    with torch.no_grad(), GPrune.for_reduction(model.config, 0.5, visual_tokens=n)(model) as trace:
        model(**sample)
    assert trace.scoring_macs[0] == (144**2 + (n - 144) ** 2) * (32 + 5)
    assert saved(model, trace) == pytest.approx(0.5, abs=0.01)


def _finer():
    made = processor("llava_next")
    made.patch_size = 2
    return made


def test_a_budget_out_of_reach_says_what_is_in_reach():
    with pytest.raises(BudgetError, match=r"G-Prune cannot save 99\.0%.*reaches 9\d\.\d%"):
        GPrune.for_reduction(build("llama", 4, patch=2).config, 0.99)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_towers_of_another_form_are_refused(family):
    model = build_family(family)
    with pytest.raises(UnsupportedModel, match="form"):
        GPrune.for_reduction(model.config, 0.5, visual_tokens=36)
    with pytest.raises(UnsupportedModel, match="form"), GPrune()(model):
        pass


def test_bfloat16():
    model = build("llama", 3, dtype=torch.bfloat16)
    with torch.no_grad(), GPrune(keep_ratio=0.25)(model) as trace:
        assert model(**prompt(model, [3, "image", 5])).logits.isfinite().all()
    assert [len(layer) for layer in kept(trace)] == [9, 9, 9]


@pytest.mark.parametrize("options", [{"keep_ratio": 1}, {"keep_ratio": -0.1}, {"temperature": 0}, {"iterate_num": 0}])
def test_parameters_outside_their_range(options):
    with pytest.raises(FitPruneError):
        GPrune(**options)
