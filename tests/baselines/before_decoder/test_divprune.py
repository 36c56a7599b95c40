"""DivPrune against its literal rule: greedy max-min diversity of the projected embeddings."""

import pytest
import torch

from baselines.before_decoder.divprune import DivPrune, farthest
from fitprune import BudgetError, FitPruneError, UnsupportedModel
from tests.reference.divprune import divprune
from tests.support.before_decoder import compare, dense, embedded, saved
from tests.support.families import build as build_family
from tests.support.families import inputs, processor
from tests.support.models import batch, build, kept, new_tokens, prompt
from tests.support.waits import Largest

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


@pytest.mark.parametrize("ratio", [0.098, 0.3, 0.5, 0.9])
def test_the_choice_on_random_tensors(ratio):
    generator = torch.Generator().manual_seed(0)
    counts = [40, 17, 0, 33]
    features = torch.randn(4, 40, 12, generator=generator)
    present = torch.arange(40) < torch.tensor(counts)[:, None]
    keep = torch.tensor([round(ratio * count) for count in counts])
    found = farthest(features.masked_fill(~present[..., None], 0), present, keep)
    for row, count in enumerate(counts):
        expected, gap = divprune(features[row, :count], ratio)
        assert gap > 1e-6
        assert found[row].nonzero().flatten().tolist() == expected


def test_of_two_nearest_to_each_other_the_first_is_picked_first():
    """Two outliers close together: which is picked decides what follows, and no rounding may."""
    generator = torch.Generator().manual_seed(1)
    crowd = torch.tensor([1.0, 0, 0, 0]) + 0.05 * torch.randn(10, 4, generator=generator)
    pair = torch.tensor([[0, 1.0, 0, 0], [0, 1.0, 0.9, 0]])
    features = torch.cat([crowd, pair])[None]
    present = torch.ones(1, 12, dtype=torch.bool)
    for rows in (1, 3):
        chosen = farthest(features.expand(rows, -1, -1), present.expand(rows, -1), torch.ones(rows, dtype=torch.long))
        assert chosen.nonzero()[:, 1].tolist() == [10] * rows


def test_duplicates_are_not_chosen_twice():
    features = torch.tensor([[[1.0, 0], [1, 0], [1, 0], [0, 1]]])
    assert farthest(features, torch.ones(1, 4, dtype=torch.bool), torch.tensor([3])).sum() == 3


@pytest.mark.parametrize("positions", ["repacked", "kept"])
@pytest.mark.parametrize("kind", ["llama-gqa", "qwen2"])
def test_in_a_batch(kind, positions):
    model = build(kind, 3, seed=2)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]

    def rule(found, row):
        chosen, gap = divprune(found.features, 0.2)
        assert gap > 1e-6
        return [(index, None) for index in chosen]

    compare(model, DivPrune(0.2, positions=positions), samples, lambda side: batch(samples, side), rule)


def test_base_view_tiles_and_newlines():
    """One pool per prompt; the authors' holds the newline tokens."""
    model = build_family("llava_next")
    sample = inputs(processor("llava_next"), [["w1 w2", (60, 40), "w3"]])
    found = embedded(model, sample)
    with torch.no_grad(), DivPrune(0.3)(model) as trace:
        tokens = new_tokens(model, sample, 4)[0].tolist()
    chosen, gap = divprune(found.features, 0.3)
    assert gap > 1e-6
    assert kept(trace)[0] == chosen
    assert tokens == dense(model, found, [(index, None) for index in chosen], "repacked")[1]
    image = (sample["input_ids"][0] == model.config.image_token_id).nonzero().flatten()
    with torch.no_grad(), DivPrune(0.3, newlines="pruned")(model) as trace:
        model(**sample)
    # Newlines are all alike, so of them one is chosen before all others are.
    chosen, _ = divprune(found.embeds[image], 0.3)
    newlines = [index for index in range(len(image)) if image[index].item() not in found.visual]
    assert len(set(chosen) & set(newlines)) == 1
    others = [index for index in chosen if index not in newlines]
    assert [index for index in kept(trace)[0] if index not in newlines] == others


@pytest.mark.parametrize("reduction", [0.05, 0.3, 0.5, 0.7, 0.9])
def test_for_reduction(reduction):
    model = build("qwen2", 4, patch=2)
    pruner = DivPrune.for_reduction(model.config, reduction)
    inputs = prompt(model, [3, "image", 4])
    with torch.no_grad(), pruner(model) as trace:
        model(**inputs)
    assert trace.scoring_macs == [144**2 * 32, 0, 0, 0]
    assert saved(model, trace) == pytest.approx(reduction, abs=0.01)
    assert pruner.params()["positions"] == "repacked"


def test_a_budget_out_of_reach_says_what_is_in_reach():
    config = build("llama", 4, patch=2).config
    with pytest.raises(BudgetError, match=r"DivPrune cannot save 99\.0%.*reaches 9\d\.\d%") as error:
        DivPrune.for_reduction(config, 0.99)
    assert "\n" not in str(error.value)


def test_on_three_axes_positions_are_kept_and_the_result_says_so():
    model = build_family("qwen2_5_vl")
    sample = inputs(processor("qwen2_5_vl"), [["w1 w2", (60, 40), "w3"]])
    with pytest.raises(UnsupportedModel, match="three axes"), DivPrune()(model):
        pass
    pruner = DivPrune.for_reduction(model.config, 0.5, visual_tokens=len(embedded_tokens(model, sample)))
    assert "kept" in pruner.notes(model)[0]
    with torch.no_grad(), pruner(model) as trace:
        model(**sample)
    assert saved(model, trace) == pytest.approx(0.5, abs=0.05)


def embedded_tokens(model, sample):
    return (sample["input_ids"][0] == model.config.image_token_id).nonzero()


def test_bfloat16():
    model = build("llama", 3, dtype=torch.bfloat16)
    with torch.no_grad(), DivPrune(0.25)(model) as trace:
        assert model(**prompt(model, [3, "image", 5])).logits.isfinite().all()
    assert [len(layer) for layer in kept(trace)] == [9, 9, 9]
    assert DivPrune().notes(model) == []


@pytest.mark.parametrize("ratio", [1, 1.5, -0.1])
def test_parameters_outside_their_range(ratio):
    with pytest.raises(FitPruneError, match="subset_ratio"):
        DivPrune(ratio)


def test_a_long_prompt_is_chosen_from_blocks_of_distances_that_never_are_a_matrix():
    """4671 tokens, the most of a LLaVA-OneVision picture; the same kept set as by the whole matrix."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(600, 16, generator=generator)
    features = pictures[torch.randint(600, (1, 4671), generator=generator)] + 0.5 * torch.randn(
        1, 4671, 16, generator=generator
    )
    present, keep = torch.arange(4671)[None] < 4600, torch.tensor([900])
    with Largest() as held:
        chosen = farthest(features, present, keep)
    assert held.numel < 4671**2 / 15
    unit = torch.nn.functional.normalize(features[0, :4600], dim=-1).double()
    distance = 1 - unit @ unit.T
    nearest = distance.clone().fill_diagonal_(torch.inf).amin(1)
    for step in range(900):
        pick = int(nearest.argmax())
        assert chosen[0, pick]
        nearest = distance[pick].clone() if step == 0 else nearest.minimum(distance[pick])
        nearest[pick] = -torch.inf
    assert int(chosen.sum()) == 900
