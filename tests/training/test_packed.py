"""Packed training passes give what prompts give one by one, and the other parts of training do what they say."""

from random import Random

import pytest
import torch

from harness.scenes import draw, world
from harness.scenes.prompts import chat, prompt
from harness.scenes.questions import KINDS
from training import packed
from training.batches import Batcher
from training.families import FAMILIES
from training.muon import StackedMuon, orthogonal
from training.plan import PLANS, Plan
from training.tokenizer import EOS

LLAVA = FAMILIES["llava"]
CANVASES = {"llava": [(1, 1)], "llava-next": [(1, 1), (1, 3), (3, 1)], "llava-hr": [(1, 1), (2, 2)]}


@pytest.fixture(scope="module")
def processor():
    return LLAVA.make_processor()


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    return LLAVA.make_model(processor.tokenizer, width=32, layers=3).eval()


def prefix_of(family, model, batch, tokenizer) -> torch.Tensor:
    """What comes before a question, embedded: BOS, `USER: `, the visual tokens, a line break."""
    features, _ = family.features(model, batch.pixels, batch.canvas)
    visual = family.visual_tokens(model, features, batch.canvas)
    ids = tokenizer(chat(""))["input_ids"]
    fixed = model.get_input_embeddings()(torch.tensor([ids[0], ids[1], ids[3]])).expand(len(visual), 3, -1)
    return torch.cat([fixed[:, :2], visual, fixed[:, 2:]], dim=1)


def test_every_family_is_tried_here():
    assert CANVASES.keys() == FAMILIES.keys()


@pytest.mark.parametrize(("name", "canvas"), [(name, canvas) for name, canvases in CANVASES.items() for canvas in canvases])
@torch.no_grad()
def test_packed_answers_score_as_single_prompts_do(name, canvas):
    family = FAMILIES[name]
    processor = family.make_processor()
    torch.manual_seed(0)
    model = family.make_model(processor.tokenizer, width=32, layers=3).eval()
    batch = Batcher(family, processor.tokenizer, [*KINDS, "word, read"])([5, 6], canvas=canvas)
    prefix = prefix_of(family, model, batch, processor.tokenizer)
    states, *_ = packed.text_states(model, prefix, batch.text, batch.groups)
    scores = model.lm_head(states.flatten(0, 1)[batch.where])
    offset = 0
    for image, (questions, spans) in enumerate(zip(batch.questions, batch.spans, strict=True)):
        for question, (first, stop) in zip(questions, spans, strict=True):
            text = f"{chat(prompt(question))} {question.answer}{EOS}"
            inputs = processor(images=[draw.image(world.sample(5 + image), canvas)], text=[text], return_tensors="pt")
            assert len(family.views(canvas).patch) == (inputs["input_ids"] == model.config.image_token_id).sum()
            alone = model(**inputs).logits[0, first - stop - 1 : -1]
            torch.testing.assert_close(scores[first:stop], alone, atol=2e-4, rtol=1e-3)
            assert inputs["input_ids"][0, first - stop :].tolist() == batch.target[first:stop].tolist()
            offset += stop - first
    assert offset == len(batch.target)


@torch.no_grad()
def test_blind_layers_keep_visual_tokens_from_the_text(model, processor):
    """Against the stock decoder, whose mask leaves visual tokens out of all layers; and in the first layer alone."""
    batch = Batcher(LLAVA, processor.tokenizer, ["where"])([5])
    prefix = torch.randn(1, 147, 32)

    def states_of(prefix: torch.Tensor, blind: int) -> list[torch.Tensor]:
        states, inner, *_ = packed.text_states(model, prefix, batch.text, batch.groups, depths=(1, 2), blind=blind)
        return [*inner, states]

    decoder = model.model.language_model
    hidden = torch.cat([prefix, decoder.embed_tokens(batch.text)], dim=1)
    mask = torch.ones(1, hidden.shape[1], dtype=torch.long)
    mask[:, 2:146] = 0
    places = torch.arange(hidden.shape[1])[None]
    expected = decoder(inputs_embeds=hidden, attention_mask=mask, position_ids=places).last_hidden_state[:, 147:]
    torch.testing.assert_close(states_of(prefix, 3)[-1], expected, atol=1e-4, rtol=1e-3)
    other = prefix.clone()
    other[:, 2:146] += torch.randn(1, 144, 32)
    first, second = states_of(prefix, 1), states_of(other, 1)
    assert torch.equal(first[0], second[0])
    assert (first[1] - second[1]).abs().max() > 1e-3


def test_states_of_a_depth_are_those_below_the_upper_layers(model, processor):
    batch = Batcher(LLAVA, processor.tokenizer, ["exist", "relation"])([5])
    prefix = torch.randn(1, 147, 32)
    (inner,) = packed.text_states(model, prefix, batch.text, batch.groups, depths=(2,))[1]
    for parameter in model.model.language_model.layers[2].parameters():
        assert torch.autograd.grad(inner.sum(), parameter, retain_graph=True, allow_unused=True) == (None,)
    below = model.model.language_model.layers[1].mlp.down_proj.weight
    assert torch.autograd.grad(inner.sum(), below)[0].abs().sum() > 0


@torch.no_grad()
def test_looks_are_the_attention_of_the_first_head(model, processor):
    """Against the attention weights of the stock classes, in eager mode, restricted to the visual tokens."""
    batch = Batcher(LLAVA, processor.tokenizer, ["where"])([5])
    question = batch.questions[0][0]
    inputs = processor(images=[draw.image(world.sample(5))], text=[chat(prompt(question))], return_tensors="pt")
    model.set_attn_implementation("eager")
    weights = model(**inputs, output_attentions=True).attentions[1][0, 0]
    model.set_attn_implementation("sdpa")
    prefix = prefix_of(LLAVA, model, batch, processor.tokenizer)
    looks = packed.text_states(model, prefix, batch.text, batch.groups, look=1, lookers=batch.mentions)[2]
    expected = weights[147 + batch.mentions, 2:146]
    torch.testing.assert_close(looks.exp(), expected / expected.sum(dim=1, keepdim=True), atol=1e-5, rtol=1e-3)
    (thing,) = world.sample(5).named(" ".join(question.text.rstrip("?").split()[3:5]))
    shown = batch.shown[0].view(12, 12).nonzero()
    assert len(shown) == 4
    assert {(row // 4, column // 4) for row, column in shown.tolist()} == {(thing.row, thing.column)}


def test_named_things_get_the_word_for_their_place(processor):
    batcher = Batcher(LLAVA, processor.tokenizer)
    checked = 0
    for seed in range(100):
        scene = world.sample(seed)
        for kind in ("where", "exist", "count"):
            question = KINDS[kind](scene, Random(seed))
            if question is None:
                continue
            meant = [processor.decode([token]) for _, token, _ in batcher.named(scene, batcher.question_ids(question)[0])]
            if kind == "exist" and question.answer == "yes":
                name = " ".join(question.text.split()[3:5])
                found = scene.named(name)
                assert meant == ([world.CELLS[found[0].cell]] if len(found) == 1 else [])
            else:
                assert meant == [question.answer]
            checked += 1
    assert checked > 250


def test_options_and_quoted_words_are_marked(processor):
    batcher = Batcher(LLAVA, processor.tokenizer)
    options = words = 0
    for seed in range(100):
        scene = world.sample(seed)
        question = KINDS["multiple choice"](scene, Random(seed))
        if question is not None:
            ids = batcher.question_ids(question)[0]
            for (place, token, *_), choice, letter in zip(
                batcher.spelled(scene, question, ids), question.choices, "ABCD", strict=False
            ):
                assert processor.decode(ids[: place + 1]).endswith(choice)
                assert processor.decode([token]) == ("yes" if letter == question.answer else "no")
                options += 1
        question = KINDS["word y/n"](scene, Random(seed))
        if question is not None:
            asked, ids = question.text.split('"')[1], batcher.question_ids(question)[0]
            found = batcher.spelled(scene, question, ids)
            assert [index for *_, index in found] == (list(range(1, len(asked) + 1)) if question.answer == "yes" else [])
            assert all(processor.decode([ids[place]]) == asked[index - 1] for place, _, _, index in found)
            words += len(found)
    assert options > 250
    assert words > 50


def test_newton_schulz_gives_nearly_orthogonal_matrices():
    torch.manual_seed(0)
    for shape in ((3, 16, 16), (2, 16, 48), (2, 48, 16)):
        singular = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert 0.3 < singular.median() < 1.3
        assert singular.max() < 1.4


def test_stacked_muon_steps_as_torch_does():
    torch.manual_seed(0)
    start = [torch.randn(24, 32), torch.randn(24, 32), torch.randn(16, 16)]
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    optimizers = (
        StackedMuon(ours, lr=0.01, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        gradients = [torch.randn_like(matrix) for matrix in start]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for mine, other, first in zip(ours, theirs, start, strict=True):
        assert (mine - other).norm() < 0.05 * (mine - first).norm()


def test_rates_rise_stay_and_fall():
    plan = PLANS["llava-tiny"]
    for factors in ([plan.factor(step) for step in range(plan.steps)], [plan.tower_factor(s) for s in range(plan.tower_steps)]):
        assert factors[0] == 1 / plan.warm_up
        assert max(factors) == 1
        assert 0 < factors[-1] < 0.01
    short = Plan(steps=100)
    assert short.factor(99) < 0.1 < 0.9 < short.factor(40)


@torch.no_grad()
def test_wasted_is_the_attention_that_goes_to_blank_patches(model, processor):
    """Against the attention weights of the stock decoder in eager mode, on one question, which needs no packing."""
    batch = Batcher(LLAVA, processor.tokenizer, ["where"])([5])
    prefix = torch.randn(1, 147, 32)
    blank = batch.labels["shape"] + batch.labels["character"] == 0
    assert 0 < blank.sum() < 144
    wasted = packed.text_states(model, prefix, batch.text, batch.groups, blank=blank)[3]
    decoder = model.model.language_model
    model.set_attn_implementation("eager")
    hidden = torch.cat([prefix, decoder.embed_tokens(batch.text)], dim=1)
    attentions = decoder(inputs_embeds=hidden, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    losses = []
    for layer, weights in enumerate(attentions):
        rows = weights[0, :, 147:] if layer == len(attentions) - 1 else weights[0]
        mass = rows[:, :, 2:146][:, :, blank[0]].sum(-1)
        losses.append(-(1 - mass * (1 - 1e-4)).log().mean())
    torch.testing.assert_close(wasted, torch.stack(losses).mean(), atol=1e-5, rtol=1e-4)
