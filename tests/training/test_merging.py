"""Visual tokens that training merges, in place of leaving them out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.batches import Batcher
from training.families import FAMILIES
from training.losses import MOST_MERGED, Losses, merged
from training.plan import Lesson, Plan

LLAVA = FAMILIES["llava"]
MICRO = Plan(
    width=32, layers=3, depths=(1, 2), batch=2, dropped=0.5, lessons=(Lesson(0, 4, False, False, asked=("color",), merged=0.5),)
)


class CutShort(Exception):
    pass


def test_a_token_that_goes_joins_the_anchor_that_it_is_most_like():
    """Token by token. Anchors that are alike take what joins them once, and stay what they are where nothing does."""
    torch.manual_seed(0)
    visual = torch.randn(2, 12, 8)
    visual[:, 5] = visual[:, 2]
    keep, anchors = torch.tensor([1, 2, 5, 7, 9]), torch.tensor([9, 2, 5])
    found = merged(visual, keep, anchors)
    for image in range(2):
        groups = {anchor: [anchor] for anchor in anchors.tolist()}
        for token in sorted({*range(12)} - {*keep.tolist()}):
            likeness = [torch.cosine_similarity(visual[image, token], visual[image, anchor], dim=0) for anchor in groups]
            groups[list(groups)[int(torch.stack(likeness).argmax())]].append(token)
        assert groups[5] == [5]
        for token in range(12):
            torch.testing.assert_close(found[image, token], visual[image, groups.get(token, [token])].mean(dim=0))


def test_answers_see_the_mean_where_the_anchor_stands(monkeypatch):
    losses = Losses(MICRO, 0, 1, torch.device("cpu"))
    batch = Batcher(LLAVA, LLAVA.make_processor().tokenizer, ("color",))([5, 6])
    keep, anchors = torch.arange(0, 144, 2), torch.tensor([8, 70, 20, 40, 100])
    seen = losses.family.visual_tokens
    with torch.no_grad():
        ours = losses.answer_scores(batch, keep=keep, anchors=anchors)[0]
        monkeypatch.setattr(losses.family, "visual_tokens", lambda *given: merged(seen(*given), keep, anchors))
        torch.testing.assert_close(ours, losses.answer_scores(batch, keep=keep)[0])
        monkeypatch.undo()
        assert (ours - losses.answer_scores(batch, keep=keep)[0]).abs().max() > 1e-4


def test_a_step_merges_in_the_share_that_its_lesson_says(monkeypatch):
    losses = Losses(MICRO, 0, 1, torch.device("cpu"))
    seen = []

    def answer_scores(batch, calm, ids, depths, keep, blind, unwritten, anchors):
        seen.append((keep, anchors))
        raise CutShort

    monkeypatch.setattr(losses, "answer_scores", answer_scores)
    for step in range(60):
        with pytest.raises(CutShort):
            losses.decoder_loss(step)
    merging = [(keep, anchors) for keep, anchors in seen if anchors is not None]
    assert 18 < len(merging) < 42
    assert max(144 - len(keep) for keep, anchors in seen if anchors is None) <= 72
    left = np.array([144 - len(keep) + len(anchors) for keep, anchors in merging])
    assert 72 < left.max() <= MOST_MERGED * 144
    for keep, anchors in merging:
        assert keep.tolist() == sorted({*keep.tolist()})
        assert {*anchors.tolist()} <= {*keep.tolist()}
    losses.plan = replace(MICRO, lessons=(replace(MICRO.lessons[0], merged=0.0),))
    losses.batchers = {losses.plan.lessons[0]: losses.batchers[MICRO.lessons[0]]}
    seen.clear()
    for step in range(20):
        with pytest.raises(CutShort):
            losses.decoder_loss(step)
    assert all(anchors is None for _, anchors in seen)


def test_a_whole_step_with_merging_has_a_loss_that_reaches_the_projector():
    losses = Losses(replace(MICRO, lessons=(replace(MICRO.lessons[0], merged=1.0),)), 0, 1, torch.device("cpu"))
    loss, _ = losses.decoder_loss(3)
    loss.backward()
    gradient = losses.model.model.multi_modal_projector.linear_1.weight.grad
    assert torch.isfinite(loss)
    assert gradient.abs().max() > 0
    assert torch.isfinite(gradient).all()
