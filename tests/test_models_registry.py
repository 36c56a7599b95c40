"""Names of models, and the check that a checkpoint is whole before any work starts."""

import json
from pathlib import Path

import pytest
from tiny_llava import save_tiny

from fitprune.errors import FitPruneError
from harness.models.checkpoint import digest, require_model
from harness.models.registry import MODELS, find_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    for path in checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def one_line(error: pytest.ExceptionInfo[FitPruneError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_registry_name_a_hub_id_and_a_folder_are_found(checkpoint: Path) -> None:
    assert find_model("llava-1.5-7b").source == "llava-hf/llava-1.5-7b-hf"
    assert find_model("llava-hf/llava-1.5-7b-hf") is MODELS["llava-1.5-7b"]
    assert find_model("someone/their-llava").kind == "hub"
    assert find_model(str(checkpoint)).kind == "folder"


def test_every_hub_model_is_pinned_to_a_commit() -> None:
    for spec in MODELS.values():
        if spec.kind == "hub":
            assert len(spec.revision or "") == 40
            assert int(spec.revision or "", 16)
            assert spec.size


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(FitPruneError) as error:
        find_model("lava-tiny")
    assert "llava-tiny" in one_line(error)


def test_a_folder_that_does_not_exist_is_called_a_folder() -> None:
    with pytest.raises(FitPruneError) as error:
        find_model("./nowhere")
    assert one_line(error) == "model folder './nowhere' does not exist"


@pytest.mark.parametrize("name", ["llava-1.5-7b", "someone/their-llava"])
def test_a_checkpoint_that_is_not_here_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FitPruneError, match="not on this machine") as error:
        require_model(name)
    message = one_line(error)
    assert f"hf download {find_model(name).source}" in message
    assert "llava-tiny" in message
    assert find_model(name).size in message


def test_a_whole_checkpoint_passes(checkpoint: Path) -> None:
    assert require_model(str(checkpoint)).kind == "folder"


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no model.safetensors"),
        ("processor_config.json", "no processor_config.json"),
        ("tokenizer.json", "no tokenizer.json"),
    ],
)
def test_a_missing_file_is_named(copy: Path, absent: str, said: str) -> None:
    (copy / absent).unlink()
    with pytest.raises(FitPruneError, match=said) as error:
        require_model(str(copy))
    assert str(copy) in one_line(error)


@pytest.mark.parametrize("length", [0, 4, 100, 20_000, -1])
def test_truncated_weights_are_refused(copy: Path, length: int) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(FitPruneError, match="truncated") as error:
        require_model(str(copy))
    assert "model.safetensors" in one_line(error)


def test_weights_that_are_no_safetensors_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json at all!")
    with pytest.raises(FitPruneError, match="not a safetensors file"):
        require_model(str(copy))


def test_a_missing_shard_is_named(copy: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FitPruneError, match=r"1 of 2 weight files are missing, e\.g\. model-00002-of-00002"):
        require_model(str(copy))


def test_a_config_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(FitPruneError, match="cannot be read as JSON") as error:
        require_model(str(copy))
    one_line(error)


def test_the_digest_is_of_config_and_weights(copy: Path) -> None:
    before = digest(copy)
    (copy / "README.md").write_text("a card")
    assert digest(copy) == before
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert digest(copy) != before
