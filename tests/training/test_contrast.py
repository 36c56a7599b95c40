"""Captions and the CLIP that is trained with them."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, CLIPModel

from harness.scenes import world
from training import train
from training.batches import Batcher
from training.contrast import LONGEST, Contrast, caption, caption_tokenizer
from training.families import FAMILIES
from training.losses import Heads, Losses
from training.plan import PLANS, Lesson, Plan
from training.trainer import contrast_of, run
from training.views import LETTERS

LLAVA = FAMILIES["llava"]
MICRO = Plan(
    tower_steps=2,
    tower_batch=2,
    steps=1,
    batch=1,
    width=32,
    layers=3,
    depths=(1, 2),
    captions=0.5,
    words=True,
    lessons=(Lesson(0, 4, False, False, asked=("exist", "where")),),
)


def test_captions_are_true_and_in_the_vocabulary():
    tokenizer = caption_tokenizer()
    unknown = tokenizer.unk_token_id
    for seed in range(200):
        scene = world.sample(seed)
        said = caption(scene)
        named = re.findall(r" (\w+) (\w+) in the ([\w ]+?)(?: \"(\w+)\")?(?= (?:\w+) (?:\w+) in the|$)", said)
        assert 1 <= len(named) <= 4
        truth = {(thing.color, thing.shape, world.CELLS[thing.cell], thing.text or "") for thing in scene.things}
        assert set(named) <= truth
        assert said == caption(world.sample(seed))
        ids = tokenizer(said)["input_ids"]
        assert unknown not in ids
        assert len(ids) <= LONGEST
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_the_loss_is_that_of_the_stock_clip(tmp_path):
    """Against `CLIPModel`'s own loss of the same pictures and captions, loaded from what is saved."""
    torch.manual_seed(0)
    model = LLAVA.make_model(LLAVA.make_processor().tokenizer, width=32, layers=2).eval()
    contrast = Contrast(32).eval()
    batch = Batcher(LLAVA, LLAVA.make_processor().tokenizer)([5, 6, 7])
    with torch.no_grad():
        ours = contrast(LLAVA.features(model, batch.pixels, (1, 1))[1], batch.scenes)
    stock = contrast.clip(LLAVA.tower(model))
    contrast.save(LLAVA.tower(model), tmp_path)
    saved, tokenizer = CLIPModel.from_pretrained(tmp_path, dtype=torch.float32), AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer([caption(scene) for scene in batch.scenes], padding=True, return_tensors="pt")
    assert torch.equal(
        inputs["input_ids"],
        contrast.tokenizer([caption(s) for s in batch.scenes], padding=True, return_tensors="pt")["input_ids"],
    )
    for clip, tolerance in ((stock, 1e-5), (saved, 2e-2)):
        with torch.no_grad():
            theirs = clip(**inputs, pixel_values=batch.pixels, return_loss=True).loss
        assert ours.item() == pytest.approx(theirs.item(), abs=tolerance)


def test_the_end_of_a_caption_sums_it_up():
    """What comes after the end token changes nothing; what comes before does."""
    torch.manual_seed(0)
    contrast = Contrast(32).eval()
    ids = contrast.tokenizer([" red circle in the top left"], return_tensors="pt")["input_ids"]
    padded = torch.cat([ids, torch.full((1, 3), contrast.tokenizer.pad_token_id)], dim=1)
    other = contrast.tokenizer([" blue circle in the top left"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        one, long, changed = (contrast.text(input_ids=given).text_embeds for given in (ids, padded, other))
    torch.testing.assert_close(one, long)
    assert (one - changed).abs().max() > 1e-3


def test_tower_and_text_tower_learn_from_captions():
    batch = Batcher(LLAVA, LLAVA.make_processor().tokenizer)([5, 6])
    torch.manual_seed(0)
    heads = Heads(32, labels=0.0, captions=2.0)
    patches, summary = torch.randn(2, 144, 32), torch.randn(2, 32, requires_grad=True)
    loss, _ = heads(patches, summary, batch)
    assert loss.item() == pytest.approx(2 * heads.contrast(summary, batch.scenes).item())
    loss.backward()
    assert summary.grad.abs().max() > 0
    assert heads.contrast.text.text_projection.weight.grad.abs().max() > 0
    assert Heads(32).contrast is None


def test_words_count_among_labels():
    losses = {words: Losses(replace(MICRO, words=words), 0, 1, torch.device("cpu")) for words in (False, True)}
    batch = Batcher(LLAVA, LLAVA.make_processor().tokenizer)([5])
    patches, summary = torch.randn(1, 144, 32), torch.randn(1, 32)
    plain, spelling = losses[False].heads, losses[True].heads
    spelling.load_state_dict(plain.state_dict(), strict=False)
    more = spelling(patches, summary, batch)[0] - plain(patches, summary, batch)[0]
    heads = ((spelling.patch[letter], batch.labels[letter].flatten()) for letter in LETTERS)
    assert more.item() == pytest.approx(sum(F.cross_entropy(head(patches[0]), label).item() for head, label in heads), rel=1e-5)


def test_a_run_with_captions_leaves_the_clip_that_it_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("training.losses.WATCHED", range(world.HELD_OUT_SEEDS[0], world.HELD_OUT_SEEDS[0] + 1))
    monkeypatch.setitem(PLANS, "deep-d", MICRO)
    work = tmp_path / "work"
    assert train.main(["deep-d", "--work", str(work), "--processes", "1", "--scenes", "2"]) == 1
    model, _ = run(MICRO, work, processes=1)
    clip = CLIPModel.from_pretrained(work / "model" / "clip", dtype=torch.float32)
    trained = contrast_of(MICRO, work).clip(LLAVA.tower(model)).state_dict()
    untrained = Losses(MICRO, 0, 1, torch.device("cpu")).heads.contrast.text.text_projection.weight
    assert clip.state_dict().keys() == trained.keys()
    assert all((value - trained[name]).abs().max() < 0.02 for name, value in clip.state_dict().items())
    assert not torch.equal(trained["text_projection.weight"], untrained)
