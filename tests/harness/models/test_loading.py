"""From a folder to a live model."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from fitprune.errors import FitPruneError
from harness.models.checkpoint import digest
from harness.models.devices import choose_device, placement
from harness.models.families.templates import VICUNA
from harness.models.loading import load_model
from tests.support.tiny_llava import save_tiny

pytestmark = pytest.mark.releases
QUESTION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what color ?"}]}]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_tiny(tmp_path)


def test_it_loads_what_was_saved(checkpoint: Path) -> None:
    loaded = load_model(str(checkpoint), device="cpu")
    assert type(loaded.model) is LlavaForConditionalGeneration
    assert loaded.revision == digest(checkpoint)
    assert loaded.dtype == torch.float32
    assert not loaded.model.training
    saved = LlavaForConditionalGeneration.from_pretrained(checkpoint).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.model.state_dict().items())


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_the_dtype_can_be_chosen(checkpoint: Path, dtype: "str | torch.dtype") -> None:
    assert load_model(str(checkpoint), device="cpu", dtype=dtype).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["int8", "half-ish", torch.int32])
def test_a_dtype_that_cannot_hold_weights_is_refused(checkpoint: Path, dtype: "str | torch.dtype") -> None:
    with pytest.raises(FitPruneError, match="unknown dtype"):
        load_model(str(checkpoint), dtype=dtype)


def test_a_device_that_is_not_there_is_refused(checkpoint: Path) -> None:
    with pytest.raises(FitPruneError, match="this machine has"):
        load_model(str(checkpoint), device="cuda:63")
    with pytest.raises(FitPruneError, match="unknown device 'gpu'"):
        load_model(str(checkpoint), device="gpu")


def test_prompts_are_padded_on_the_left_and_come_from_the_chat_template(checkpoint: Path) -> None:
    loaded = load_model(str(checkpoint), device="cpu")
    assert loaded.processor.tokenizer.padding_side == "left"
    prompt = loaded.processor.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    assert prompt == "USER: <image>\nwhat color ? ASSISTANT:"


def test_a_checkpoint_without_a_chat_template_gets_the_vicuna_one(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    assert load_model(str(checkpoint), device="cpu").processor.chat_template == VICUNA


def test_without_weights_a_model_of_the_same_shape_can_be_had(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(FitPruneError, match=r"no model\.safetensors"):
        load_model(str(checkpoint))
    state = torch.get_rng_state()
    loaded = load_model(str(checkpoint), device="cpu", require_weights=False)
    assert loaded.revision == "random"
    assert torch.equal(torch.get_rng_state(), state)


def test_code_that_came_with_a_checkpoint_is_not_run(checkpoint: Path) -> None:
    config = (checkpoint / "config.json").read_text()
    remote = '"auto_map": {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}, "model_type": "evil"'
    (checkpoint / "config.json").write_text(config.replace('"model_type": "llava"', remote))
    (checkpoint / "evil.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(FitPruneError, match="transformers cannot load this checkpoint") as error:
        load_model(str(checkpoint))
    assert "\n" not in str(error.value)


def test_weights_that_lack_a_part_of_the_model_are_refused(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights.pop("model.multi_modal_projector.linear_1.weight", None) or weights.pop("multi_modal_projector.linear_1.weight")
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(FitPruneError, match=r"the weights lack 1 of the model's tensors, e\.g\. .*linear_1\.weight") as error:
        load_model(str(checkpoint), device="cpu")
    assert "\n" not in str(error.value)


def test_weights_of_another_shape_are_refused_in_one_line(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["intermediate_size"] += 8
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(FitPruneError, match="transformers cannot load this checkpoint") as error:
        load_model(str(checkpoint), device="cpu")
    assert "\n" not in str(error.value)


def test_an_older_processor_is_told_the_model_s_sizes(checkpoint: Path) -> None:
    path = checkpoint / "processor_config.json"
    record = json.loads(path.read_text())
    for name in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
        record.pop(name, None)
    path.write_text(json.dumps(record))
    processor = load_model(str(checkpoint), device="cpu").processor
    inputs = processor(images=[Image.new("RGB", (40, 30))], text=["<image> what"], return_tensors="pt")
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 16


@pytest.mark.parametrize("free", [10, 10**12])
def test_a_model_that_a_gpu_cannot_hold_is_spread_or_refused(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free, 10**12))
    assert choose_device(None, 14_126_854_144) == ("auto" if free == 10 else "cuda:0")
    assert choose_device("auto", 14_126_854_144) == "auto"
    if free == 10:
        with pytest.raises(FitPruneError, match=r"the weights take 14\.1 GB, and cuda:0 has 0\.0 GB free; use --device auto"):
            choose_device("cuda", 14_126_854_144)
    else:
        assert choose_device("cuda", 14_126_854_144) == "cuda:0"


@pytest.mark.parametrize(("device", "map_"), [("cpu", None), ("auto", "auto"), ("cuda:1", {"": "cuda:1"})])
def test_where_transformers_puts_the_layers(device: str, map_: object) -> None:
    assert placement(device) == map_


def test_a_model_that_is_spread_answers_as_on_one_device(checkpoint: Path) -> None:
    spread, whole = (load_model(str(checkpoint), device=device, dtype="float32") for device in ("auto", "cpu"))
    assert spread.device in ("cpu", "cuda:0")
    inputs = whole.processor(images=[Image.new("RGB", (40, 30))], text=["<image> what"], return_tensors="pt")
    with torch.no_grad():
        outputs = [loaded.model(**inputs.to(loaded.device)).logits.cpu() for loaded in (spread, whole)]
    assert torch.allclose(*outputs, atol=1e-5)
