"""Processors as checkpoints of all ages hold them, without torchvision."""

import json

import pytest
import torch
from transformers.models.smolvlm import processing_smolvlm

from baselines.controls.random_pruning import Random
from fitprune.models.parts import SEE_VIDEOS
from harness.models.loading import load_model
from harness.models.processors import load_processor
from harness.models.prompting import encode
from tests.support.families import FAMILIES, image, save
from tests.support.models import kept

pytestmark = pytest.mark.releases
COMMON = {"local_files_only": True, "trust_remote_code": False}


def made(folder, family):
    """What the folder's processor gives for an image and its place in a prompt."""
    processor = load_processor(folder, family, COMMON)
    return processor, dict(processor(images=[image(50, 31)], text=[f"{processor.image_token} w1"], return_tensors="pt"))


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(params=FAMILIES)
def checkpoint(request, tmp_path):
    return request.param, save(request.param, tmp_path, layers=1)


def test_the_processor_of_the_hub_s_layout_takes_videos_where_these_are_pruned(checkpoint):
    family, folder = checkpoint
    processor, inputs = made(folder, family)
    assert (getattr(processor, "video_processor", None) is None) == (family not in SEE_VIDEOS)
    assert type(processor.image_processor).__name__.endswith("Pil")
    assert int((inputs["input_ids"] == processor.image_token_ids[0]).sum()) > 1
    assert processor.chat_template


def test_one_file_for_everything_as_newer_checkpoints_have_it(checkpoint):
    family, folder = checkpoint
    _, before = made(folder, family)
    images = folder / "preprocessor_config.json"
    whole = json.loads((folder / "processor_config.json").read_text()) | {"image_processor": json.loads(images.read_text())}
    whole["video_processor"] = {"video_processor_type": "SomeVideoProcessor", "size": {"height": 4, "width": 4}, "fps": 3}
    images.unlink()
    (folder / "processor_config.json").write_text(json.dumps(whole))
    processor, after = made(folder, family)
    assert same(before, after)
    videos = getattr(processor, "video_processor", None)
    assert (videos.fps if family in SEE_VIDEOS else videos) == (3 if family in SEE_VIDEOS else None)


def test_a_checkpoint_saved_with_torchvision_is_read_with_pillow(checkpoint):
    family, folder = checkpoint
    _, before = made(folder, family)
    path = folder / "preprocessor_config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"image_processor_type": record["image_processor_type"] + "Fast"}))
    processor, after = made(folder, family)
    assert same(before, after)
    assert type(processor.image_processor).__name__.endswith("Pil")


def test_qwen_s_published_pixel_bounds_are_read(tmp_path):
    folder = save("qwen2_5_vl", tmp_path, layers=1)
    _, before = made(folder, "qwen2_5_vl")
    path = folder / "preprocessor_config.json"
    record = json.loads(path.read_text())
    size = record.pop("size")
    bounds = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    path.write_text(json.dumps(record | bounds))
    assert same(before, made(folder, "qwen2_5_vl")[1])


def test_smolvlm_needs_no_package_for_the_frames_of_videos(tmp_path, monkeypatch):
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    folder = save("smolvlm", tmp_path, layers=1)
    assert made(folder, "smolvlm")[0].image_seq_len == 4
    assert processing_smolvlm.num2words is None


def test_prompts_with_and_without_images_in_one_batch(tmp_path):
    """SmolVLM's processor wants a list of images for each prompt; features and draws are those of the prompt alone."""
    loaded = load_model(str(save("smolvlm", tmp_path, layers=1)), device="cpu")
    questions, pictures = ["w1 w2", "w3", "w4 w5"], [[], [image(40, 30)], []]
    together = encode(loaded, questions, pictures)
    assert (together["input_ids"] == loaded.model.config.image_token_id).sum(1).tolist() == [0, 20, 0]
    pruner = Random(0.5)
    with torch.no_grad(), pruner(loaded.model) as trace:
        loaded.model(**together)
        drawn = kept(trace, 1)
        loaded.model(**encode(loaded, questions[1:2], pictures[1:2]))
    assert kept(trace) == drawn
    assert "pixel_values" not in encode(loaded, questions[:1], pictures[:1])
