"""Names of models, and the check that a checkpoint is whole before any work starts."""

import json
import re
import shutil
from pathlib import Path

import pytest
from transformers import LlavaForConditionalGeneration
from transformers.utils.chat_template_utils import render_jinja_template

from fitprune.errors import FitPruneError
from harness.models.checkpoint import check_folder, digest, require_model
from harness.models.families import ENTRIES, FAMILIES
from harness.models.loading import load_model
from harness.models.registry import MODELS, find_model
from harness.models.shipped import family_of, read_config
from harness.models.spec import BYTES
from tests.support.tiny_llava import save_tiny


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


NAMES = [
    "llava-tiny",
    "llava-1.5-7b",
    "llava-1.5-13b",
    "llava-next-7b",
    "llava-next-mistral-7b",
    "llava-next-13b",
    "llava-hr-7b",
    "llava-hr-x-13b",
    "llava-onevision-0.5b",
    "llava-onevision-7b",
    "qwen2.5-vl-3b",
    "qwen2.5-vl-7b",
    "qwen3-vl-2b",
    "qwen3-vl-4b",
    "qwen3-vl-8b",
    "internvl3-1b",
    "internvl3-8b",
    "internvl3.5-1b",
    "internvl3.5-8b",
    "smolvlm2-500m",
    "smolvlm2-2.2b",
    "gemma-3-4b",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_model_of_the_paper_and_its_neighbours_is_registered(name: str) -> None:
    spec = MODELS[name]
    assert spec.name == name
    assert spec.family in FAMILIES
    assert find_model(spec.source) is spec or spec.kind == "embedded"
    assert spec.dtype in BYTES


def test_names_sources_and_families_are_used_once() -> None:
    assert len(MODELS) == len(ENTRIES) == len({spec.source for spec in ENTRIES})
    assert all(name == family.model_type for name, family in FAMILIES.items())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_s_own_template_makes_one_turn(name: str) -> None:
    """Rendered as transformers renders it: one image place, the question, and a place for the answer."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what color ?"}]}
    template = render_jinja_template([[message]], chat_template=FAMILIES[name].chat_template, add_generation_prompt=True)
    (prompt,) = template[0]
    assert prompt.count("what color ?") == 1
    special = {
        "qwen2_5_vl": "<|image_pad|>",
        "qwen3_vl": "<|image_pad|>",
        "internvl": "<IMG_CONTEXT>",
        "gemma3": "<start_of_image>",
    }
    image = special.get(name, "<image>")
    assert prompt.count(image) == 1
    assert prompt.index(image) < prompt.index("what color ?") < len(prompt) - len("what color ?")
    assert prompt.endswith(
        ("ASSISTANT:", "<|im_start|>assistant\n", "<end_of_utterance>\nAssistant:", "<start_of_turn>model\n")
    )


def test_the_authors_prompts() -> None:
    """LLaVA-HR's, word for word (its checkpoint brings no template), and Mistral's."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it red?"}]}

    def rendered(template: str | None) -> str:
        return render_jinja_template([[message]], chat_template=template, add_generation_prompt=True)[0][0]

    assert rendered(FAMILIES["llava_hr"].chat_template) == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
        "polite answers to the user's questions. USER: <image>\nIs it red? ASSISTANT:"
    )
    assert rendered(MODELS["llava-next-mistral-7b"].chat_template) == "[INST] <image>\nIs it red? [/INST]"


@pytest.mark.parametrize("name", ["llava-hr-7b", "llava-hr-x-13b"])
def test_a_checkpoint_of_another_layout_says_how_it_is_converted(name: str) -> None:
    with pytest.raises(FitPruneError) as error:
        require_model(name)
    message, spec = one_line(error), MODELS[name]
    source = spec.source.partition("/")[2]
    assert f"hf download {spec.source} --revision {spec.revision} --local-dir {source}" in message
    assert f"python -m harness.models.llava_hr {source} {name}" in message
    assert f"--model ./{name}" in message
    assert spec.size in message


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(FitPruneError) as error:
        find_model("lava-tiny")
    assert "llava-tiny" in one_line(error)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llava-onevision-1.5", "is not in transformers"),
        ("lmms-lab/LLaVA-OneVision-1.5-8B-Instruct", "is not in transformers"),
    ],
)
def test_a_family_that_cannot_be_run_says_why(name: str, said: str) -> None:
    with pytest.raises(FitPruneError, match=rf"^'{name}' {said}.*; take ") as error:
        find_model(name)
    for alternative in one_line(error).rstrip(".").rpartition("; take ")[2].split(" or "):
        assert alternative in MODELS


def test_so_does_a_folder_with_such_a_model(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "llavaonevision1_5"}))
    with pytest.raises(FitPruneError, match=rf"^'{re.escape(str(copy))}' .*; take ") as error:
        family_of(find_model(str(copy)), read_config(find_model(str(copy))))
    one_line(error)


def test_names_that_only_begin_alike_are_no_such_family() -> None:
    assert find_model("someone/llava-onevision-1.50").source == "someone/llava-onevision-1.50"
    assert find_model("llava-onevision-0.5b").name == "llava-onevision-0.5b"


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
    with pytest.raises(FitPruneError, match=r"1 of 2 weight files are missing, e\.g\. model-00002-of-00002") as error:
        require_model(str(copy))
    assert "incomplete" in one_line(error)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The tiny model in several files, with an index, as the hub holds large ones."""
    folder = save_tiny(tmp_path / "sharded")
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def test_a_checkpoint_in_several_files_passes(sharded: Path) -> None:
    check_folder(sharded)


def test_one_truncated_file_of_several_is_named(sharded: Path) -> None:
    last = sorted(sharded.glob("model-*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(FitPruneError, match="truncated") as error:
        check_folder(sharded)
    assert last.name in one_line(error)


@pytest.mark.parametrize("moved", ["listed in another file", "not listed", "not there"])
def test_an_index_and_files_of_different_downloads_are_refused(sharded: Path, moved: str) -> None:
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    name, home = next(iter(index["weight_map"].items()))
    if moved == "listed in another file":
        index["weight_map"][name] = next(file for file in index["weight_map"].values() if file != home)
    elif moved == "not listed":
        del index["weight_map"][name]
    else:
        index["weight_map"]["model.of.another.release"] = home
    path.write_text(json.dumps(index))
    with pytest.raises(FitPruneError, match="index and file disagree on 1 tensors") as error:
        check_folder(sharded)
    assert ("model.of.another.release" if moved == "not there" else name) in one_line(error)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_refused(sharded: Path, index: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(index)
    with pytest.raises(FitPruneError, match=r"index\.json: holds no") as error:
        check_folder(sharded)
    one_line(error)


def test_a_git_lfs_pointer_is_recognised(copy: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "a" + "\nsize 14126854144\n"
    (copy / "model.safetensors").write_text(pointer)
    with pytest.raises(FitPruneError, match="Git LFS pointer") as error:
        require_model(str(copy))
    assert "git lfs pull" in one_line(error)


def test_a_tensor_whose_bytes_are_not_those_of_its_shape_is_refused(copy: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (copy / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(
        FitPruneError, match=r"not a safetensors file \(\d+ bytes, invalid shape, [^\n]*\); download or save it"
    ):
        require_model(str(copy))


def test_pickled_weights_are_named_and_not_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(FitPruneError, match=r"only safetensors weights are read \(pytorch_model\.bin is pickled"):
        require_model(str(copy))


def test_an_interrupted_download_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    blobs = tmp_path / "models--llava-hf--llava-1.5-7b-hf" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{64 * 'a'}.incomplete").write_bytes(bytes(100))
    with pytest.raises(FitPruneError, match="which resumes the interrupted download") as error:
        require_model("llava-1.5-7b")
    assert "llava-hf/llava-1.5-7b-hf (14 GB)" in one_line(error)


def test_a_snapshot_of_the_hub_s_cache_is_found_by_its_commit(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    spec = MODELS["llava-1.5-7b"]
    snapshot = tmp_path / "models--llava-hf--llava-1.5-7b-hf" / "snapshots" / str(spec.revision)
    shutil.copytree(checkpoint, snapshot)
    assert require_model("llava-1.5-7b") is spec
    loaded = load_model("llava-1.5-7b", device="cpu")
    assert loaded.revision == spec.revision
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(FitPruneError, match=r"no model\.safetensors"):
        require_model("llava-1.5-7b")


@pytest.mark.parametrize("offline", [True, False])
def test_the_error_names_the_variables_of_the_hub(offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with pytest.raises(FitPruneError, match="HF_HOME") as error:
        require_model("qwen2.5-vl-7b")
    message = one_line(error)
    assert ("HF_HUB_OFFLINE" in message) is offline
    assert "Qwen/Qwen2.5-VL-7B-Instruct (17 GB)" in message


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
