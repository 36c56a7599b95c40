"""What is written under a thing, told by each of its visual tokens."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.scenes import world
from harness.scenes.draw import CHARACTERS, patch_labels
from training.batches import Batcher
from training.families import FAMILIES
from training.losses import TURN, Losses, without_characters
from training.plan import Lesson, Plan
from training.views import CELL_OF_PATCH

LLAVA = FAMILIES["llava"]
MICRO = Plan(
    width=32,
    layers=3,
    depths=(1, 2),
    batch=2,
    spelling=0.5,
    words=True,
    curriculum=1,
    lessons=(Lesson(0, 4, False, False, asked=("word", "number", "color")),),
)


@pytest.fixture(scope="module")
def losses():
    return Losses(MICRO, 0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def batch():
    return Batcher(LLAVA, LLAVA.make_processor().tokenizer, ("word", "number", "color"))([5, 6])


def test_spelling_is_the_cross_entropy_of_each_character_in_its_place(losses, batch):
    """Against the scenes, token by token: the tokens of a thing, and of its characters, tell all of them."""
    visual = torch.randn(2, 144, 32)
    embedded = {character: losses.model.lm_head.weight[losses.batcher.ids(character)[0]] for character in CHARACTERS}
    wanted = []
    for row, scene in enumerate(batch.scenes):
        labels = patch_labels(scene)
        shown = (labels["shape"] + labels["character"]).ravel() > 0
        for thing in scene.things:
            for patch in np.flatnonzero(shown & (thing.cell == CELL_OF_PATCH)):
                for place, character in enumerate(thing.text):
                    turned = {
                        c: torch.cat([e[-TURN * (place + 1) % 32 :], e[: -TURN * (place + 1) % 32]])
                        for c, e in embedded.items()
                    }
                    scores = torch.stack([turned[c] @ visual[row, patch] for c in CHARACTERS]).log_softmax(dim=0)
                    wanted.append(-scores[CHARACTERS.index(character)].item())
    assert len(wanted) > 50
    assert losses.spelling(visual, batch).item() == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)


def test_without_characters_their_tokens_are_the_mean_of_the_blank_ones(batch):
    visual = torch.randn(2, 144, 8)
    bare = without_characters(visual, batch)
    for row, scene in enumerate(batch.scenes):
        labels = {name: label.ravel() for name, label in patch_labels(scene).items()}
        written = labels["character"] > 0
        assert written.any()
        mean = visual[row][torch.from_numpy(~written & (labels["shape"] == 0))].mean(dim=0)
        torch.testing.assert_close(bare[row][written], mean.expand(int(written.sum()), 8))
        torch.testing.assert_close(bare[row][~written], visual[row][~written], rtol=0, atol=0)


def test_answers_of_an_unwritten_step_do_not_depend_on_the_tokens_of_characters(losses, batch, monkeypatch):
    with torch.no_grad():
        bare, written = (losses.answer_scores(batch, unwritten=unwritten)[0] for unwritten in (True, False))
        seen = losses.family.visual_tokens

        def spoiled(*arguments):
            visual = seen(*arguments)
            return torch.where((batch.labels["character"] > 0)[:, :, None], visual + 3, visual)

        monkeypatch.setattr(losses.family, "visual_tokens", spoiled)
        torch.testing.assert_close(losses.answer_scores(batch, unwritten=True)[0], bare)
        assert (losses.answer_scores(batch)[0] - written).abs().max() > 1e-3


@pytest.mark.parametrize(("share", "told"), [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
def test_the_plan_says_in_which_share_of_the_steps_characters_show_nothing(losses, share, told, monkeypatch):
    plan = replace(MICRO, unwritten=share, steps=20)
    found, inner = set(), Losses.answer_scores
    monkeypatch.setattr(losses, "plan", plan)

    def noted(self, batch, calm, ids, depths, keep, blind, unwritten, anchors):
        found.add(unwritten)
        return inner(self, batch, calm, ids, depths, keep, blind, unwritten, anchors)

    monkeypatch.setattr(Losses, "answer_scores", noted)
    for step in range(8):
        losses.decoder_loss(step)
    assert found == told


def test_the_log_has_words_without_the_tokens_of_their_characters(losses, monkeypatch):
    monkeypatch.setattr("training.losses.WATCHED", range(world.HELD_OUT_SEEDS[0], world.HELD_OUT_SEEDS[0] + 2))
    assert not any("unwritten" in kind for kind in losses.watched())
    monkeypatch.setattr(losses, "plan", replace(MICRO, unwritten=0.5))
    assert {"word, unwritten", "number, unwritten"} <= losses.watched().keys()
