"""VisionZip against its literal rule, on random tensors and in models."""

import pytest
import torch

from baselines.before_decoder.visionzip import VisionZip, choose, merge
from fitprune import BudgetError, FitPruneError
from tests.reference.visionzip import visionzip
from tests.support.models import batch, build, kept, new_tokens, prompt
from tests.support.padded import padded, places
from tests.support.shortened import check, layers_of, llava, measured, shorter, tiled, without_cls

pytestmark = pytest.mark.releases
SIZES = [36, 41, 7, 90, 1, 64]
# Strides of 1 and more, no contextual tokens, none that join, nothing at all.
COUNTS = [([10, 20, 3, 17, 1, 0], [3, 5, 1, 20, 0, 1]), ([36, 1, 6, 60, 0, 50], [0, 40, 1, 30, 1, 0])]


@pytest.mark.parametrize(("dominant", "contextual"), COUNTS)
def test_random_tensors_against_the_literal_rule(dominant, contextual):
    generator = torch.Generator().manual_seed(3)
    scores = [torch.rand(n, generator=generator) for n in SIZES]
    keys = [torch.randn(n, 8, generator=generator) for n in SIZES]
    features = [torch.randn(n, 12, generator=generator) for n in SIZES]
    score, patches = padded(scores)
    counts = torch.tensor(dominant), torch.tensor(contextual)
    dominants, targets, joins = choose(score, padded(keys)[0], patches, *counts)
    merged = merge(padded(features)[0], targets, joins)
    for row in range(len(SIZES)):
        first, second, rows = visionzip(scores[row], keys[row], features[row], [], dominant[row], contextual[row])
        assert dominants[row].nonzero()[:, 0].tolist() == first
        assert places(targets[row]) == second
        torch.testing.assert_close(merged[row, : len(second)], rows[len(first) :], rtol=0, atol=1e-5)


def rule(pruner, layers):
    """The views' [CLS] tokens are named by the first tokens that go."""

    def choose_of(seen, n):
        layer = pruner.layer % layers
        dominant = round(n * pruner.dominant / pruner.visual_tokens)
        contextual = round(n * (pruner.dominant + pruner.contextual) / pruner.visual_tokens) - dominant
        score, cls = seen.attention(layer).sum(0), (seen.cls or [])[:dominant]
        first, second, rows = visionzip(score, seen.keys(layer), seen.features(), cls, dominant, contextual)
        made = [token for token in range(n) if token not in first + second][: len(cls)]
        return made + first + second, rows, made

    return choose_of


@pytest.mark.product(strength=1)
@pytest.mark.parametrize(("dominant", "contextual"), [(191, 30), (54, 10), (300, 276), (32, 0)])
@pytest.mark.parametrize("case", [llava, tiled, without_cls])
def test_a_batch_against_the_literal_rule(case, dominant, contextual):
    case = case()
    pruner = VisionZip(dominant, contextual)
    check(case, pruner, rule(pruner, layers_of(case.model)))


def test_the_authors_settings_on_their_token_count():
    for dominant, contextual in [(162, 30), (108, 20), (54, 10)]:
        total = dominant + contextual
        model = build("llama", 2, patch=1)
        with torch.no_grad(), VisionZip(dominant, contextual)(model) as trace:
            model(**prompt(model, [1, "image", 2]))
        assert int(trace.visual_in[0]) == total
        # [CLS] stands for no patch.
        assert len(kept(trace)[0]) == total - 1


def test_positions_may_be_kept():
    """[CLS] and the contextual tokens then have the ids of the tokens that they are named by."""
    case = llava()
    model, sample = case.model, case.samples[0]
    pruner = VisionZip(128, 64, positions="kept")
    with torch.no_grad(), pruner(model):
        logits = model(**sample).logits[0]
    embeds, names, _ = shorter(model, sample, rule(pruner, 2))
    # In the rows' order, not the ids': a contextual token may have a lower id than a dominant one before it.
    ids = torch.tensor([[0, 1, 2, *(3 + name for name in names), *range(39, 44)]])
    mask = torch.ones(len(embeds), len(embeds), dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        hidden = model.model.language_model(inputs_embeds=embeds[None], position_ids=ids, attention_mask=mask)
        expected = model.lm_head(hidden.last_hidden_state)[0]
    assert float((logits - expected).abs().max() / expected.abs().max()) < 2e-5


def test_bfloat16():
    model = build("llama-gqa", 3, seed=2, dtype=torch.bfloat16)
    inputs = batch([prompt(model, [3, "image", 5]), prompt(model, [2, "image", 1, "image", 4], seed=1)])
    with torch.no_grad(), VisionZip(128, 64)(model) as trace:
        assert new_tokens(model, inputs, 3).shape == (2, 3)
    assert [int(count) for count in trace.visual_in[0]] == [12, 24]


@pytest.mark.parametrize("reduction", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_for_reduction(reduction):
    model = build("qwen2", 6, patch=2)
    pruner = VisionZip.for_reduction(model.config, reduction)
    kept_in_all = pruner.dominant + pruner.contextual
    assert pruner.contextual == round(kept_in_all * 10 / 64)
    assert measured(model, pruner, prompt(model, [3, "image", 4])) == pytest.approx(reduction, abs=0.01)


@pytest.mark.parametrize("options", [{"dominant": 550, "contextual": 30}, {"dominant": -1}, {"contextual": -1}])
def test_counts_that_cannot_be(options):
    with pytest.raises(FitPruneError, match=r"dominant \+ contextual") as error:
        VisionZip(**options)
    assert "\n" not in str(error.value)


def test_refusals():
    model = build("llama", 2)
    with pytest.raises(FitPruneError, match="tower layer -3; this tower has 2 layers"), VisionZip(layer=-3)(model):
        pass
    with pytest.raises(BudgetError, match="reaches 9"):
        VisionZip.for_reduction(model.config, 0.9999)
    assert VisionZip().notes(model) == []
    assert "no [CLS]" in VisionZip().notes(without_cls().model)[0]
