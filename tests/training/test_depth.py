"""Layers that are inserted change nothing at first, and learn; position ids of visual tokens may be anything."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from harness.scenes import draw, world
from harness.scenes.prompts import chat, prompt
from training import losses, packed, train
from training.batches import Batcher
from training.card import attention_of, tower_of, variants_of
from training.depth import deepen, depth_after
from training.families import FAMILIES
from training.plan import PLANS, Lesson, Plan
from training.position_ids import LEAST, jittered
from training.tokenizer import EOS

LLAVA = FAMILIES["llava"]


class CutShort(Exception):
    """Raised once a step has said what it is about to do."""


@pytest.fixture(scope="module")
def processor():
    return LLAVA.make_processor()


@pytest.fixture
def model(processor):
    torch.manual_seed(0)
    return LLAVA.make_model(processor.tokenizer, width=32, layers=3).eval()


@pytest.fixture(scope="module")
def inputs(processor):
    return processor(images=[draw.image(world.sample(5))], text=[chat("Where is the red circle?")], return_tensors="pt")


@torch.no_grad()
def test_a_deeper_decoder_answers_as_before_and_is_a_stock_model(model, inputs, tmp_path):
    before, old = model(**inputs).logits, list(model.get_decoder().layers)
    deepen(model, (2, 3, 2))
    layers = list(model.get_decoder().layers)
    assert [old.index(layer) if layer in old else "new" for layer in layers] == [0, 1, "new", "new", 2, "new"]
    torch.testing.assert_close(model(**inputs).logits, before, atol=1e-6, rtol=0)
    model.save_pretrained(tmp_path)
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert len(loaded.get_decoder().layers) == 6
    long, short = (one.generate(**inputs, max_new_tokens=4, use_cache=cache) for one, cache in ((loaded, True), (model, False)))
    assert torch.equal(long, short)  # each layer has a cache of its own


@torch.no_grad()
def test_inserted_layers_attend_as_the_layer_that_they_come_before(model, inputs):
    """By the stock classes' attention weights; behind the last layer, as that one would."""
    model.set_attn_implementation("eager")
    before = model(**inputs, output_attentions=True).attentions
    deepen(model, (1, 1, 3))
    attentions = model(**inputs, output_attentions=True).attentions
    for number, old in enumerate((0, 1, 1, 1, 2)):
        torch.testing.assert_close(attentions[number], before[old], atol=1e-5, rtol=1e-4)
    assert (before[0] - before[1]).abs().max() > 1e-3
    last, new = list(model.get_decoder().layers)[-2:]
    assert torch.equal(last.self_attn.q_proj.weight, new.self_attn.q_proj.weight)


def test_inserted_layers_learn(model, inputs):
    deepen(model, (1,))
    new = model.get_decoder().layers[1]
    model(**inputs).logits.square().sum().backward()
    assert new.self_attn.o_proj.weight.grad.abs().max() > 0
    assert new.mlp.down_proj.weight.grad.abs().max() > 0


def test_states_are_read_above_the_layers_inserted_there():
    inserted = (4, 4, 6, 8)
    assert [depth_after(depth, inserted) for depth in (3, 4, 5, 6, 8)] == [3, 6, 7, 9, 12]
    plan = Plan(depths=(4, 6), inserted=inserted, deep_from=10)
    assert (plan.depths_of(9), plan.depths_of(10)) == ((4, 6), (6, 9))


def test_rates_warm_up_again_where_layers_are_inserted():
    plan = Plan(steps=100, warm_up=10, deep_from=40, inserted=(1,))
    assert plan.factor(39) == 1
    assert [plan.factor(step) for step in (40, 44, 49)] == [0.1, 0.5, 1.0]
    assert plan.factor(75) == pytest.approx(0.5)
    plan = Plan(projector_steps=40, warm_up=10)
    assert [plan.projector_factor(step) for step in (0, 9, 20, 30, 39)] == pytest.approx([0.1, 1, 1, 0.5, 0.05])


def test_jittered_ids_rise_within_their_extent():
    rng = np.random.default_rng(0)
    assert torch.equal(jittered(144, 0.0, rng), torch.arange(145.0))
    drawn = [jittered(144, 1.0, rng) for _ in range(200)]
    extents = torch.stack([ids[-1] for ids in drawn])
    assert LEAST <= extents.min() < 16
    assert 130 < extents.max() <= 144
    assert all(ids[0] == 0 and (ids.diff() >= 0).all() for ids in drawn)
    even = sum(bool(ids.diff().std() < 1e-3) for ids in drawn)
    assert 70 < even < 130
    usual = sum(torch.equal(jittered(144, 0.75, rng), torch.arange(145.0)) for _ in range(400))
    assert 70 < usual < 130


@torch.no_grad()
def test_packed_answers_follow_the_ids_of_visual_tokens(model, processor):
    """Against the stock model, asked one question with the same `position_ids`."""
    batch = Batcher(LLAVA, processor.tokenizer, ["exist", "relation"])([5])
    ids = jittered(144, 1.0, np.random.default_rng(3))
    visual = LLAVA.visual_tokens(model, LLAVA.features(model, batch.pixels, (1, 1))[0], (1, 1))
    start, user, _, line = processor.tokenizer(chat(""))["input_ids"][:4]
    fixed = model.get_input_embeddings()(torch.tensor([[start, user, line]]))
    prefix = torch.cat([fixed[:, :2], visual, fixed[:, 2:]], dim=1)
    scores = []
    for given in (ids, None):
        states, *_ = packed.text_states(model, prefix, batch.text, batch.groups, ids=given)
        scores.append(model.lm_head(states.flatten(0, 1)[batch.where]))
    for question, (first, stop) in zip(batch.questions[0], batch.spans[0], strict=True):
        text = f"{chat(prompt(question))} {question.answer}{EOS}"
        inputs = processor(images=[draw.image(world.sample(5))], text=[text], return_tensors="pt")
        behind = 2 + ids[-1] + torch.arange(inputs["input_ids"].shape[1] - 146)
        places = torch.cat([torch.arange(2), 2 + ids[:-1], behind])[None]
        alone = model(**inputs, position_ids=places).logits[0, first - stop - 1 : -1]
        torch.testing.assert_close(scores[0][first:stop], alone, atol=2e-4, rtol=1e-3)
        assert (scores[1][first:stop] - alone).abs().max() > 1e-3


@torch.no_grad()
def test_the_decoder_is_shown_the_tokens_that_are_kept_where_they_were(processor):
    """Against the stock decoder on the kept visual tokens alone, with the ids that all of them had."""
    lessons = (Lesson(0, 4, False, False),)
    run = losses.Losses(Plan(width=32, layers=3, depths=(1, 2), lessons=lessons), 0, 1, torch.device("cpu"))
    batch = Batcher(LLAVA, processor.tokenizer, ["where"])([5])
    keep, ids = torch.tensor([0, 3, 70, 143]), jittered(144, 1.0, np.random.default_rng(3))
    scores, *_, visual, _ = run.answer_scores(batch, ids=ids, keep=keep)
    start, user, _, line = processor.tokenizer(chat(""))["input_ids"][:4]
    embed = run.model.get_input_embeddings()
    hidden = torch.cat(
        [embed(torch.tensor([[start, user]])), visual[:, keep], embed(torch.tensor([[line]])), embed(batch.text)], 1
    )
    places = torch.cat([torch.arange(2), 2 + ids[keep], 2 + ids[-1] + torch.arange(1 + batch.text.shape[1])])[None]
    expected = run.model.get_decoder()(inputs_embeds=hidden, position_ids=places).last_hidden_state[0, 7:][batch.where]
    torch.testing.assert_close(scores, run.model.lm_head(expected), atol=2e-4, rtol=1e-3)


def test_a_step_of_training_drops_and_blindfolds_as_its_plan_says(monkeypatch):
    """The plan's share of tokens is left out at most; in its share of steps text is blind in a third of the layers at most."""
    seen: list[tuple[int, int]] = []

    def text_states(model, prefix, text, groups, depths, look, lookers, blank, ids, blind):
        assert len(ids) == prefix.shape[1] - 2
        seen.append((144 - (prefix.shape[1] - 3), blind))
        raise CutShort

    monkeypatch.setattr(packed, "text_states", text_states)
    plan = Plan(width=32, layers=6, depths=(1, 2), batch=1, dropped=0.5, blind=0.5, lessons=(Lesson(0, 4, False, False),))
    run = losses.Losses(plan, 0, 1, torch.device("cpu"))
    for step in range(60):
        with pytest.raises(CutShort):
            run.decoder_loss(step)
    dropped, blind = (np.array(found) for found in zip(*seen, strict=True))
    assert dropped.min() < 8 < 60 < dropped.max() <= 72
    assert set(blind) == {0, 1, 2}
    assert 25 < (blind == 0).sum() < 55
    seen.clear()
    with pytest.raises(CutShort):
        losses.Losses(replace(plan, dropped=0.0, blind=0.0), 0, 1, torch.device("cpu")).decoder_loss(0)
    assert seen == [(0, 0)]


def test_a_step_of_training_jitters_as_its_plan_says(monkeypatch):
    seen = []
    monkeypatch.setattr(packed, "text_states", lambda *given: seen.append(given[-2]) or 1 / 0)
    for jitter in (0.0, 1.0):
        plan = Plan(width=32, layers=2, depths=(1, 2), batch=1, jitter=jitter, lessons=(Lesson(0, 4, False, False),))
        run = losses.Losses(plan, 0, 1, torch.device("cpu"))
        for step in (0, 1, 0):
            with pytest.raises(ZeroDivisionError):
                run.decoder_loss(step)
    assert all(torch.equal(ids, torch.arange(145.0)) for ids in seen[:3])
    assert torch.equal(seen[3], seen[5])
    assert not torch.equal(seen[3], seen[4])


def test_seeds_of_one_model_learn_alike_from_scenes_of_their_own(capsys):
    plans = [PLANS["llava-deep-tiny" + ending] for ending in ("", "-b", "-c")]
    assert replace(plans[1], seed=2, first_seed=plans[2].first_seed) == plans[2]
    assert replace(plans[1], seed=0, first_seed=0) == plans[0]
    assert len({plan.seed for plan in plans}) == 3
    firsts = sorted(plan.first_seed for plan in plans)
    assert all(first + plans[0].seeds_used <= after for first, after in pairwise(firsts))
    assert train.main(["llava-deep-tyni-b"]) == 2
    assert "did you mean llava-deep-tiny-b or llava-deep-tiny-c" in capsys.readouterr().err


def test_a_run_that_ends_before_its_layers_are_inserted_is_refused(tmp_path, capsys):
    assert train.main(["llava-deep-tiny-b", "--steps", "800", "--work", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: --steps must be more than 800, where llava-deep-tiny-b becomes deeper\n"
    assert not list(tmp_path.iterdir())


def test_a_card_says_what_its_plan_did_with_attention_positions_and_depth():
    assert "was taught" in attention_of(PLANS["llava-tiny"])
    assert "No lesson of this run" in attention_of(PLANS["llava-deep-tiny"])
    assert "from llava-tiny's weights on" in attention_of(PLANS["llava-deep-tiny"])
    assert "captions, which the text tower" in tower_of(PLANS["llava-deep-tiny"])
    assert "the features that llava-tiny's tower gives" in tower_of(PLANS["llava-next-tiny"])
    assert variants_of(PLANS["llava-tiny"]) == []
    jitter, dropped, blind, depth = variants_of(Plan(jitter=2 / 3, dropped=0.6, blind=0.5, inserted=(4, 4, 6), deep_from=350))
    assert "share of the visual tokens, 60% at most, was left out" in dropped
    assert "In 50% of the decoder steps no text attended" in blind
    deep = "".join(variants_of(PLANS["llava-deep-tiny-b"]))
    assert "in 70% of the decoder steps the tokens of the characters themselves showed\nnothing" in deep
    assert "Some prompts gave what an OCR engine read" in deep
    assert "From step 600 on, in 50% of the steps, tokens left out were merged" in deep
    assert "that llava-tiny's projector makes" in variants_of(PLANS["llava-deep-tiny"])[0]
    assert "In 67% of the decoder steps" in jitter
    assert depth.strip() == "At step 350 layers that change nothing at first were inserted: 2 after layer 4, 1 after layer 6."
