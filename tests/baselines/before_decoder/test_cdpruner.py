"""CDPruner against its literal rule, in the authors' form and in that on embeddings, which OpenVINO serves."""

import pytest
import torch

from baselines.before_decoder.cdpruner import CDPruner, CDPrunerEmbeddings
from baselines.registry import PRUNERS
from baselines.shared.choosing import greedy
from baselines.shared.choosing.greedy import most_diverse
from baselines.shared.dry_tower import before_decoder
from fitprune import BudgetError, FitPruneError, Reader, UnsupportedModel, give_reader
from fitprune.flops import visual_macs
from fitprune.models.clip_text import ClipText
from fitprune.models.sizes import DecoderSizes
from harness.models.loading import load_model
from harness.models.registry import find_model
from harness.models.shipped import transformers_config
from tests.reference.cdpruner import cdpruner, relevance_of_embeddings, weights
from tests.reference.clip import cosine, patches_of, text_of
from tests.support.before_decoder import compare
from tests.support.families import build as build_family
from tests.support.families import inputs, processor
from tests.support.models import batch, build, prompt
from tests.support.readers import clip, words
from tests.support.shortened import check, llava, tiled
from tests.support.waits import Largest

pytestmark = pytest.mark.releases
PARTS = [[3, "image", 5], ["image", 2], [4, "image", 1, "image", 7], [9]]


def test_the_choice_on_random_kernels():
    generator = torch.Generator().manual_seed(2)
    counts, keep = [20, 13, 0, 18], torch.tensor([9, 13, 0, 4])
    features = torch.randn(4, 20, 24, generator=generator)
    weight = torch.rand(4, 20, generator=generator) + 0.1
    present = torch.arange(20) < torch.tensor(counts)[:, None]
    found = most_diverse(features, weight, present, keep)
    for row, count in enumerate(counts):
        expected, lead = cdpruner(features[row, :count], weight[row, :count].tolist(), int(keep[row])) if count else ([], 1)
        assert lead > 1e-5
        assert found[row].nonzero()[:, 0].tolist() == expected


def test_beyond_the_rank_of_the_features_no_token_is_taken_twice():
    """Six tokens in three dimensions: the authors' code repeats one; here the rest follows by weight."""
    generator = torch.Generator().manual_seed(3)
    features, weight = torch.randn(1, 6, 3, generator=generator), torch.tensor([[0.5, 0.9, 0.3, 0.8, 0.7, 0.4]])
    found = most_diverse(features, weight, torch.ones(1, 6, dtype=torch.bool), torch.tensor([5]))
    expected, _ = cdpruner(features[0], (weight[0] / 0.9).tolist(), 5)
    assert found[0].nonzero()[:, 0].tolist() == expected
    assert len(expected) == 5


def test_a_long_prompt_is_chosen_without_its_whole_kernel(monkeypatch):
    """4671 tokens, the most of a LLaVA-OneVision picture; the same kept set as by the whole kernel."""
    generator = torch.Generator().manual_seed(4)
    features, weight = torch.randn(1, 4671, 64, generator=generator), torch.rand(1, 4671, generator=generator) + 0.1
    given = features, weight, torch.arange(4671)[None] < 4600, torch.tensor([120])
    with Largest() as held:
        found = most_diverse(*given)
    assert held.numel < 4671**2 / 30
    monkeypatch.setattr(greedy, "WHOLE", 4671)
    with Largest() as held:
        assert most_diverse(*given).equal(found)
    assert held.numel == 4671**2
    assert int(found.sum()) == 120


@pytest.mark.parametrize(("theta", "positions"), [(0.5, "repacked"), (0.0, "kept"), (1.0, "repacked"), (0.9, "kept")])
def test_in_a_batch(theta, positions):
    model = build("llama-gqa", 3, seed=2)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate(PARTS)]

    def rule(found, row):
        texts = torch.stack([vector for at, vector in enumerate(found.embeds) if at not in found.visual])
        weight = weights(relevance_of_embeddings(found.features, texts), theta)
        stays, lead = cdpruner(found.features, weight, round(0.2 * len(found.features)))
        assert lead > 1e-6
        return [(index, None) for index in stays]

    compare(model, CDPrunerEmbeddings(80, theta, positions=positions), samples, lambda side: batch(samples, side), rule)


def test_on_three_axes_positions_are_kept_and_what_it_costs():
    model = build_family("qwen2_5_vl")
    sample = inputs(processor("qwen2_5_vl"), [["w1 w2", (60, 40), "w3"]])
    n = int((sample["input_ids"] == model.config.image_token_id).sum())
    pruner = CDPrunerEmbeddings.for_reduction(model.config, 0.5, visual_tokens=n)
    with torch.no_grad(), pruner(model) as trace:
        model(**sample)
    left = int(trace.visual_in[0])
    assert trace.scoring_macs == [(n + n**2) * 32 + n * left * (left - 1) // 2, *[0] * (len(trace.scoring_macs) - 1)]
    assert "kept" in pruner.notes(model)[0]


@pytest.mark.parametrize(
    ("given", "said"), [((100,), "below 100, not 100"), ((50, 1.5), "relevance_weight is a share, 0 to 1")]
)
def test_what_cannot_be_is_refused(given, said):
    with pytest.raises(FitPruneError, match=said):
        CDPrunerEmbeddings(*given)


def rule_of(case, questions, share):
    """What CDPruner keeps: of each view its share, by the question of each sample with an image in turn."""
    model, tokenizer = clip(case.model.config.vision_config.hidden_size)
    asked = iter(questions)

    def choose(seen, n):
        text = text_of(model, tokenizer, next(asked))
        patches = patches_of(model, seen.features().float())
        against = [-cosine(patch, text) for patch in patches]
        low, high, going = min(against), max(against), []
        weight = [(value - low + 1e-6) / (high - low) for value in against]
        with torch.no_grad():
            projected = case.model.model.multi_modal_projector(seen.features().float())
        for view in range(len(seen.views)):
            mine = [index for index, (other, _) in enumerate(seen.token) if other == view]
            chosen, lead = cdpruner(projected[mine], [weight[index] for index in mine], round(share * len(mine)))
            assert lead > 1e-6
            going += [mine[index] for index in chosen]
        return sorted(going), None, ()

    return choose


# The questions with an image of each case, as CLIP takes them: ten words, a start and an end.
CASES = [
    (llava, ["t32 t27 t33 t2 t59 t31 t6 t44", "t61 t17 t3 t60 t32 t43 t29 t20 t42 t35", "t54 t21"]),
    (tiled, ["w1 w2 w3 w4 w5", "w6 w7 w8 w9"]),
]


@pytest.mark.parametrize(("case", "questions"), CASES)
def test_a_batch_against_the_authors_rule(case, questions):
    case = case()
    check(case, CDPruner(7, 36), rule_of(case, questions, 7 / 36), new=2)


@pytest.mark.parametrize("name", ["cdpruner", "trim", "mmtok"])
@pytest.mark.parametrize("reduction", [0.5, 0.9])
def test_a_budget_on_a_model_of_7b(name, reduction):
    """CLIP's text tower is paid for, by the tower and the decoder of the real model's sizes."""
    config = transformers_config(find_model("llava-1.5-7b"))
    pruner = PRUNERS[name].for_reduction(config, reduction)
    left, spent = before_decoder(pruner, config, 576, 1)
    costs = DecoderSizes.of(config).costs()
    saved = 1 - (32 * visual_macs([0], left, **costs) + spent) / (32 * visual_macs([0], 576, **costs))
    assert saved == pytest.approx(reduction, abs=0.002)
    assert spent > (1e9 if name != "mmtok" else 1e8)


def test_without_clips_text_tower_it_is_refused():
    model = build("llama", 2)
    with pytest.raises(BudgetError, match=r"CDPruner cannot save 50\.0%"):
        CDPruner.for_reduction(model.config, 0.5)
    give_reader(model, Reader(words(64)))
    with pytest.raises(UnsupportedModel, match="no CLIP text tower is named for this model; take a LLaVA"), CDPruner()(model):
        pass
    give_reader(model, Reader(words(64), load_clip=lambda: ClipText(*clip(32))))
    with pytest.raises(UnsupportedModel, match="features here are 16 wide, those of the CLIP model named for it 32"):
        CDPruner().require(model)
    with pytest.raises(UnsupportedModel, match="no CLIP text tower is named"):
        CDPruner().require(load_model("llava-tiny", "cpu").model)
