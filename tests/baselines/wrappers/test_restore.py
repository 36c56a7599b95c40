"""RESTORE against its literal rule, on random tensors and in models."""

import pytest
import torch
from transformers import DynamicCache

from baselines import RestoreDivPrune, RestoreHoloV, RestoreVisPruner
from baselines.wrappers.restore import merge
from fitprune import BudgetError, Composed, FitPrune, FitPruneError, Recipe, UnsupportedModel
from tests.reference.divprune import divprune
from tests.reference.holov import holov
from tests.reference.restore import groups, restore
from tests.reference.tower import look
from tests.reference.vispruner import vispruner
from tests.support import families
from tests.support.models import batch, build, kept, new_tokens, prompt
from tests.support.shortened import layers_of, llava, measured, tiled

pytestmark = pytest.mark.releases


def test_random_tensors_against_the_literal_rule():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(4, 40, 6, generator=generator) + 0.5
    chosen = torch.rand(4, 40, generator=generator) < 0.2
    there = torch.arange(40) < torch.tensor([40, 31, 40, 0])[:, None]
    chosen &= there
    anchors = torch.tensor([9, 4, 0, 0])
    stays, hidden, size = merge(features, chosen, there & ~chosen, anchors, 9)
    for row in range(4):
        n, own = int(there[row].sum()), chosen[row].nonzero()[:, 0].tolist()
        expected = groups(features[row, :n].double(), own, len(own) + int(anchors[row]))
        assert stays[row].nonzero()[:, 0].tolist() == sorted(expected)
        for name, members in expected.items():
            assert size[row, name] == len(members)
            torch.testing.assert_close(hidden[row, name], features[row, members].mean(0))
    assert float(size.sum(1)[0]) == 40


def test_long_prompts_are_compared_in_blocks(monkeypatch):
    features = torch.randn(2, 30, 5, generator=torch.Generator().manual_seed(1))
    chosen = torch.arange(30).expand(2, -1) % 7 == 0
    whole = merge(features, chosen, ~chosen, torch.tensor([6, 3]), 6)
    monkeypatch.setattr("baselines.wrappers.restore.BLOCK", 8)
    blocks = merge(features, chosen, ~chosen, torch.tensor([6, 3]), 6)
    assert torch.equal(whole[0], blocks[0])
    assert torch.equal(whole[2], blocks[2])


def chooser(pruner, model, sample):
    """The literal choice of the wrapped method, of int(retention / 2) tokens."""

    def choose(features, n):
        count = round(n * int(pruner.retention * (1 - pruner.merged)) / pruner.visual_tokens)
        if isinstance(pruner, RestoreDivPrune):
            return divprune(features.float(), count / n)[0]
        seen, layer = look(model, sample, range(layers_of(model))), layers_of(model) - 2
        score = seen.attention(layer).mean(0)
        if isinstance(pruner, RestoreHoloV):
            return holov(score, seen.features(), count)[0]
        return vispruner(score, seen.features(), count, 0.5, len(seen.views))

    return choose


@pytest.mark.parametrize(
    ("case", "wrapped", "options"),
    [
        (llava, RestoreHoloV, {"retention": 192}),
        (llava, RestoreVisPruner, {"retention": 100, "merged": 0.25}),
        (llava, RestoreDivPrune, {"merged": 0.0}),
        (llava, RestoreDivPrune, {"retention": 192, "merged": 1.0}),
        (tiled, RestoreHoloV, {"retention": 100}),
        (tiled, RestoreDivPrune, {"retention": 64, "merged": 0.25}),
    ],
)
def test_a_batch_against_the_literal_rule(case, wrapped, options):
    case, pruner = case(), wrapped(**options)
    model = case.model
    with torch.no_grad(), pruner(model) as trace:
        answers = new_tokens(model, case.batch, 3).tolist()
        logits = model(**case.batch).logits
        survivors = [kept(trace, row) for row in range(len(case.samples))]
    for row, sample in enumerate(case.samples):
        expected, answer, names = restore(
            model,
            sample,
            chooser(pruner, model, sample) if "pixel_values" in sample else None,
            lambda n: round(n * pruner.retention / pruner.visual_tokens),
            3,
        )
        assert survivors[row] == [names] * len(survivors[row])
        difference = (logits[row, -len(expected) :] - expected).abs().max() / expected.abs().max()
        assert float(difference) < 2e-5, f"sample {row}: {float(difference)}"
        assert answers[row] == answer


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_and_both_attentions(attention, side):
    model = build("llama-gqa", 3, seed=2, attention=attention)
    samples = [prompt(model, parts, seed) for seed, parts in enumerate([[3, "image", 5, 7], ["image", 2]])]
    inputs, pruner = batch(samples, side), RestoreDivPrune(192)
    with torch.no_grad(), pruner(model):
        logits = model(**inputs).logits
        for row, sample in enumerate(samples):
            alone = model(**sample).logits[0]
            both = logits[row, -len(alone) :] if side == "left" else logits[row, : len(alone)]
            torch.testing.assert_close(both, alone, rtol=2e-5, atol=2e-5)


def test_a_cache_goes_on_as_one_forward_would():
    """Beams, a second turn of text, and tokens one by one see the sizes of what they look at."""
    model = build("llama-gqa", 3, seed=2)
    sample = prompt(model, [3, "image", 5, 7])
    later = torch.tensor([[8, 9, 4]])
    with torch.no_grad(), RestoreDivPrune(192)(model):
        cache = DynamicCache(config=model.config.get_text_config())
        model(**sample, past_key_values=cache)
        ones = torch.ones(1, sample["input_ids"].shape[1] + 3, dtype=torch.long)
        at_once = model(input_ids=later, attention_mask=ones, past_key_values=cache).logits[0]
        cache.crop(-3)
        one_by_one = [
            model(input_ids=later[:, i : i + 1], attention_mask=ones[:, : -2 + i or None], past_key_values=cache).logits[0, 0]
            for i in range(3)
        ]
        torch.testing.assert_close(at_once, torch.stack(one_by_one), rtol=2e-5, atol=2e-5)
        beams = model.generate(**sample, max_new_tokens=4, num_beams=2, do_sample=False)
        double = batch([sample, sample])
        assert torch.equal(model.generate(**double, max_new_tokens=4, num_beams=2, do_sample=False)[1:], beams)


def test_without_calibration_the_decoder_is_as_it_was():
    model = build("llama-gqa", 3, seed=2)
    sample = prompt(model, [3, "image", 5, 7])
    pruner = RestoreDivPrune(192, calibrated=False)
    with torch.no_grad(), pruner(model):
        logits = model(**sample).logits[0]
    rule = chooser(pruner, model, sample)
    expected = restore(model, sample, rule, lambda n: round(n * 192 / 576), 0, calibrated=False)[0]
    torch.testing.assert_close(logits, expected.float(), rtol=2e-5, atol=2e-4)


MIXED = [["w1 w2", (40, 20), "w3 w4 w5"], ["w6", (44, 48), "w7", (20, 60), "w8 w9"], ["w1 w5 w6"]]


@pytest.mark.product(strength=1)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("calibrated", [True, False], ids=["calibrated", "merged"])
@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3", "smolvlm"])
def test_a_batch_of_another_family_is_right_or_refused(family, calibrated, attention):
    """One image, two, none: each row is the literal rule's, and a family whose distances are no one number is refused."""
    model = families.build(family, 4, seed=1)
    model.set_attn_implementation(attention)
    pruner, processor = RestoreDivPrune(192, calibrated=calibrated), families.processor(family)
    inputs = families.inputs(processor, MIXED)
    if calibrated and family != "smolvlm":
        with pytest.raises(UnsupportedModel, match=r"^restore-divprune [^\n]* Take calibrated=False\.$"), pruner(model):
            pass
        return
    with torch.no_grad(), pruner(model) as trace:
        answers, logits = new_tokens(model, inputs, 3).tolist(), model(**inputs).logits
    for row, parts in enumerate(MIXED):
        sample = families.inputs(processor, [parts])
        rule = chooser(pruner, model, sample)
        expected, answer, names = restore(model, sample, rule, lambda n: round(n * 192 / 576), 3, calibrated=calibrated)
        assert kept(trace, row) == [names] * 4
        difference = (logits[row, -len(expected) :] - expected).abs().max() / expected.abs().max()
        assert float(difference) < 2e-5, f"sample {row}: {float(difference)}"
        assert answers[row] == answer


@pytest.mark.parametrize("wrapped", [RestoreHoloV, RestoreVisPruner])
@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3"])
def test_a_base_that_cannot_read_the_tower_says_so(family, wrapped):
    model = families.build(family, 2, seed=1)
    with pytest.raises(UnsupportedModel, match=r"^restore-\w+ works on a CLIP or SigLIP tower; [^\n]*$"), wrapped()(model):
        pass


@pytest.mark.parametrize("wrapped", [RestoreHoloV, RestoreVisPruner, RestoreDivPrune])
def test_choosing_and_merging_are_paid_for(wrapped):
    model = build("qwen2", 8, patch=2, hidden=64)
    pruner = wrapped.for_reduction(model.config, 0.6)
    assert measured(model, pruner, prompt(model, [3, "image", 4])) == pytest.approx(0.6, abs=0.01)


def test_bfloat16():
    model = build("llama-gqa", 3, seed=2, dtype=torch.bfloat16)
    inputs = batch([prompt(model, [3, "image", 5]), prompt(model, [2, "image", 1, "image", 4], seed=1)])
    with torch.no_grad(), RestoreHoloV(144)(model) as trace:
        assert new_tokens(model, inputs, 3).shape == (2, 3)
        assert bool(model(**inputs).logits.isfinite().all())
    assert [int(count) for count in trace.visual_in[0]] == [9, 18]


def test_what_cannot_be_is_refused():
    with pytest.raises(FitPruneError, match=r"RESTORE keeps retention tokens.*not 577 of 576"):
        RestoreHoloV(577)
    with pytest.raises(FitPruneError, match=r"0 to 1, not 1\.5"):
        RestoreHoloV(merged=1.5)
    with pytest.raises(BudgetError, match="RESTORE cannot save"):
        RestoreHoloV.for_reduction(build("llama", 2).config, 0.9999)
    with pytest.raises(FitPruneError, match="restore-divprune changes the decoder's attention"):
        Composed([RestoreDivPrune(), FitPrune(Recipe([0, 9, 5], 36))])
    model = families.build("qwen2_5_vl", 2, seed=1)
    with pytest.raises(UnsupportedModel, match=r"three axes.*calibrated=False"), RestoreDivPrune()(model):
        pass
    model = families.build("gemma3", 2, seed=1)
    with pytest.raises(UnsupportedModel, match=r"gemma3 has others in some layers.*calibrated=False"), RestoreDivPrune()(model):
        pass
    model = build("llama", 2)
    model.set_attn_implementation("flex_attention")
    with pytest.raises(UnsupportedModel, match="'flex_attention' does not take"), RestoreDivPrune()(model):
        model(**prompt(model, [3, "image", 4]))
