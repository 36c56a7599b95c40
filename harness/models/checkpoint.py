"""Is a model's checkpoint complete on this machine? Answered in milliseconds, from file headers, without torch."""

import hashlib
import json
import struct
from pathlib import Path

from fitprune.errors import FitPruneError
from harness.models.registry import ModelSpec, embedded_folder, embedded_models, find_model

# What a snapshot must hold; pickled weights are never looked at.
_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")


def require_model(name: str) -> ModelSpec:
    """The spec of `name`, after checking that its whole checkpoint is on this machine.

    Meant for start-up: reads no weights and imports no torch.
    Raises FitPruneError for an unknown name, a missing checkpoint (with what to download) and a damaged one.
    """
    spec = find_model(name)
    check_folder(checkpoint_folder(spec))
    return spec


def checkpoint_folder(spec: ModelSpec) -> Path:
    """The local folder of a spec's checkpoint. Nothing is downloaded: the error for a missing one says how."""
    if spec.kind == "embedded":
        return embedded_folder(spec.name)
    if spec.kind == "folder":
        return Path(spec.source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(spec.source, revision=spec.revision, local_files_only=True, allow_patterns=list(_FILES)))
    except (LocalEntryNotFoundError, HFValidationError):
        raise _missing(spec) from None


def _missing(spec: ModelSpec) -> FitPruneError:
    size = f" ({spec.size})" if spec.size else ""
    revision = f" --revision {spec.revision}" if spec.revision else ""
    return FitPruneError(
        f"the weights of '{spec.name}' are not on this machine: download {spec.source}{size} with "
        f"'hf download {spec.source}{revision}', or set HF_HOME to where they are, "
        f"or take a model that ships with the package: --model {', '.join(embedded_models())}"
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in name order: what its index lists, else `model.safetensors`.

    Raises FitPruneError when there are none, or when the index names a file that is not there.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read_json(index).get("weight_map", {}).values()))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent or not names:
            raise FitPruneError(
                f"{folder}: {len(absent)} of {len(names)} weight files are missing"
                f"{f', e.g. {absent[0]}' if absent else ''}; download the checkpoint again"
            )
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if not single.is_file():
        raise FitPruneError(f"{folder}: no model.safetensors; only safetensors weights are read (save_pretrained writes them)")
    return [single]


def check_folder(folder: Path) -> None:
    """Raise FitPruneError unless the folder holds a config, a processor, and safetensors as long as they say."""
    if not folder.is_dir():
        raise FitPruneError(f"model folder '{folder}' does not exist")
    config = folder / "config.json"
    if not config.is_file():
        raise FitPruneError(f"{folder}: no config.json; not a transformers checkpoint")
    if "model_type" not in _read_json(config):
        raise FitPruneError(f"{config}: no model_type; not a transformers checkpoint")
    for path in weight_files(folder):
        _check_safetensors(path)
    if not any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        raise FitPruneError(
            f"{folder}: no processor_config.json or preprocessor_config.json; save the processor into the same folder"
        )
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise FitPruneError(f"{folder}: no tokenizer.json or tokenizer.model; save the processor into the same folder")


def _check_safetensors(path: Path) -> None:
    """Compare the file's size with where its last tensor ends.

    The format: 8 bytes with the header's length (little endian), a JSON header, the tensors.
    """
    size = path.stat().st_size
    damaged = FitPruneError(f"{path}: truncated or not a safetensors file ({size} bytes); download or save it again")
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise damaged
        (length,) = struct.unpack("<Q", start)
        if length > size - 8:
            raise damaged
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise damaged from None
    if size != 8 + length + end:
        raise damaged


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FitPruneError(f"{path}: cannot be read as JSON: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise FitPruneError(f"{path}: holds no JSON object")
    return content


def digest(folder: Path) -> str:
    """12 hex digits of SHA-256 over config and weights: the revision of a checkpoint that has no commit."""
    total = hashlib.sha256()
    for path in (folder / "config.json", *weight_files(folder)):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:12]
