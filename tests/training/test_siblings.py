"""The siblings of llava-tiny: stock classes, as many visual tokens as the picture asks for, and a start from its weights."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from harness.models.registry import EMBEDDED
from harness.scenes import draw, world
from harness.scenes.prompts import chat
from training import losses, trainer
from training.batches import Batcher
from training.distil import Distillation
from training.families import FAMILIES
from training.plan import PLANS

pytestmark = pytest.mark.releases
SIBLINGS = {name: plan for name, plan in PLANS.items() if plan.start and not plan.captions}  # whose towers learn from another
CHAT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where is the red circle?"}]}]


@pytest.fixture(scope="module", params=list(SIBLINGS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def family(name):
    return FAMILIES[SIBLINGS[name].family]


@pytest.fixture(scope="module")
def processor(family):
    return family.make_processor()


@pytest.fixture(scope="module")
def source():
    return LlavaForConditionalGeneration.from_pretrained(EMBEDDED["llava-tiny"]).eval()


def test_its_processor_survives_saving(name, processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(loaded) is type(processor)
    picture = draw.image(world.sample(1), SIBLINGS[name].canvases[-1])
    text = loaded.apply_chat_template(CHAT, add_generation_prompt=True)
    ours, theirs = (made(images=[picture], text=[text], return_tensors="pt") for made in (processor, loaded))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_next_has_as_many_visual_tokens_as_the_picture_asks_for():
    """Counted by hand: 144 of the base view, then the picture's 8-pixel patches within its padding and a newline a row."""
    processor = FAMILIES["llava-next"].make_processor()
    torch.manual_seed(0)
    model = FAMILIES["llava-next"].make_model(processor.tokenizer, width=32, layers=2).eval()
    expected = {
        (96, 96): 144 + 12 * (12 + 1),
        (96, 288): 144 + 12 * (36 + 1),
        (288, 96): 144 + 36 * (12 + 1),
        (96, 192): 144 + 12 * (24 + 1),
        (48, 96): 144 + 6 * (12 + 1),
    }
    pictures = [Image.new("RGB", (width, height), "white") for height, width in expected]
    inputs = processor(images=pictures, text=[chat("Where?")] * len(pictures), padding=True, return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum(dim=1).tolist() == list(expected.values())
    with torch.no_grad():
        together = model(**inputs).logits[:, -1]
        for row, picture in zip(together, pictures, strict=True):
            alone = processor(images=[picture], text=[chat("Where?")], return_tensors="pt")
            torch.testing.assert_close(model(**alone).logits[0, -1], row, atol=1e-4, rtol=1e-3)


def test_it_starts_with_what_llava_tiny_sees_at_96_pixels(name, family, processor, source):
    """The first 144 visual tokens are llava-tiny's; of LLaVA-HR, which has no [CLS] and resamples pixels, nearly so."""
    torch.manual_seed(0)
    model = family.make_model(processor.tokenizer)
    family.start_from(model, source)
    pictures = Batcher(family, processor.tokenizer)([5, 6]), Batcher(FAMILIES["llava"], processor.tokenizer)([5, 6])
    with torch.no_grad():
        ours, theirs = (
            one.visual_tokens(which, one.features(which, batch.pixels, (1, 1))[0], (1, 1))[:, :144]
            for one, which, batch in zip((family, FAMILIES["llava"]), (model, source), pictures, strict=True)
        )
        words = [source.lm_head(tokens).argmax(-1) for tokens in (ours, theirs)]
    shown = pictures[0].labels["character"][:, :144] > 0
    assert (words[0] == words[1])[shown].float().mean() > 0.9
    for key, tensor in source.model.language_model.state_dict().items():
        assert torch.equal(model.model.language_model.state_dict()[key], tensor)


def test_a_tower_that_gives_the_features_has_no_loss(source):
    llava = FAMILIES["llava"]
    batch = Batcher(llava, llava.make_processor().tokenizer)([5, 6])
    features, _ = llava.features(source, batch.pixels, (1, 1))
    distillation = Distillation(llava, source, source)
    loss, same = distillation(features, None, batch)
    assert (loss.item(), same) == (pytest.approx(0, abs=1e-6), 1.0)
    worse, _ = distillation(features.roll(1, dims=1), None, batch)
    assert worse.item() > 1
    assert list(distillation.parameters()) == []


def test_illegible_characters_are_taught_as_nothing(source):
    """On fine print the base view's target is the picture without characters, the tiles' is the one with them."""
    family = FAMILIES["llava-next"]
    tokenizer = family.make_processor().tokenizer
    batch = Batcher(family, tokenizer)([5], canvas=(1, 3))
    llava = FAMILIES["llava"]
    legible, bare = (
        llava.features(source, llava.pixel_values(draw.pixels(world.sample(5), text=text)[None]), (1, 1))[0]
        for text in (True, False)
    )
    written = torch.from_numpy(draw.patch_labels(world.sample(5))["character"].ravel() > 0)
    base = torch.where(written[None, :, None], bare, legible)
    taught = []
    student = family.make_model(tokenizer)
    family.start_from(student, source)
    distillation = Distillation(family, student, source)
    for first in (base, legible):
        tile = legible.unflatten(1, (12, 12)).repeat_interleave(3, dim=2)
        blank = written.view(12, 12).repeat_interleave(3, dim=1)
        blank[:, 1::3] = False
        tile = torch.where(blank[None, :, :, None], bare.unflatten(1, (12, 12)).repeat_interleave(3, dim=2), tile)
        taught.append(distillation(torch.cat([first, tile.flatten(1, 2)], dim=1), None, batch)[0].item())
    assert taught[0] == pytest.approx(0, abs=1e-6)
    assert taught[1] > 0.01


@pytest.mark.exhaustive
def test_training_runs_on_and_packs_its_canvases(name, tmp_path, monkeypatch):
    """A short run in pieces: one step of each stage for every canvas, with all losses of the last lesson."""
    monkeypatch.setattr(losses, "WATCHED", losses.WATCHED[:2])
    count = len(set(SIBLINGS[name].canvases))
    plan = replace(SIBLINGS[name], tower_steps=count, tower_batch=1, steps=count, batch=1, checkpoint_every=count)
    model, seconds = trainer.run(plan, tmp_path, processes=1)
    assert seconds > 0
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in log] == [("tower", count), ("decoder", count)]
    before = LlavaForConditionalGeneration.from_pretrained(EMBEDDED[plan.start]).state_dict()
    after = model.state_dict()
    moved = [key for key in before if key in after and not torch.equal(before[key], after[key])]
    assert "model.language_model.layers.0.self_attn.q_proj.weight" in moved
    assert "model.multi_modal_projector.linear_1.weight" in moved
    assert torch.equal(after["lm_head.weight"], after["model.language_model.embed_tokens.weight"])


def test_a_start_below_a_tower_of_its_own(source, tmp_path, monkeypatch):
    """The decoder is the start's, the tower is drawn anew and reads captions; of the projector stage nothing else learns."""
    monkeypatch.setattr(losses, "WATCHED", losses.WATCHED[:1])
    short = {"tower_steps": 1, "tower_batch": 2, "projector_steps": 1, "steps": 2, "deep_from": 1, "batch": 1}
    saved: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(trainer.Trainer, "checkpoint", _and_note(trainer.Trainer.checkpoint, saved))
    trainer.run(replace(PLANS["llava-deep-tiny"], **short), tmp_path, processes=1)
    log = [json.loads(line)["stage"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log == ["tower", "projector", "decoder", "deeper decoder"]
    start, (tower, projector, decoder, _) = source.state_dict(), saved
    for one, other, moved in ((start, tower, "vision_tower"), (tower, projector, "projector")):
        same = {name for name in one if torch.equal(one[name], other[name])}
        assert {name for name in one if moved not in name} == same
    assert not torch.equal(projector["lm_head.weight"], decoder["lm_head.weight"])


def _and_note(save, saved):
    def checkpoint(self, *arguments):
        save(self, *arguments)
        saved.append({name: value.clone() for name, value in self.model.state_dict().items()})

    return checkpoint


def test_a_projector_learns_visual_tokens_from_other_features(source):
    """Its loss compares what projectors make of features alone, not the features."""
    llava = FAMILIES["llava"]
    batch = Batcher(llava, llava.make_processor().tokenizer)([5, 6])
    features, _ = llava.features(source, batch.pixels, (1, 1))
    student = LlavaForConditionalGeneration.from_pretrained(EMBEDDED["llava-tiny"]).eval()
    with torch.no_grad():
        student.model.multi_modal_projector.linear_1.weight.mul_(0.5)
    losses_of = [Distillation(llava, student, source, tower)(2 * features, None, batch)[0].item() for tower in (False, True)]
    plain = Distillation(llava, source, source, False)(features, None, batch)[0].item()
    assert plain == pytest.approx(0, abs=1e-6)
    assert losses_of[0] < 0.1 * losses_of[1]
