"""From a folder to a live model."""

from pathlib import Path

import pytest
import torch
from tiny_llava import save_tiny
from transformers import LlavaForConditionalGeneration

from fitprune.errors import FitPruneError
from harness.models.checkpoint import digest
from harness.models.loading import load_model
from harness.models.registry import VICUNA

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
