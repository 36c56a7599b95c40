"""Where a model's checkpoint is, whether it is complete (in milliseconds, from file headers, without torch), and its digest."""

import hashlib
from pathlib import Path

from huggingface_hub import constants

from fitprune.errors import FitPruneError
from harness.models.digests import content_digest
from harness.models.json_files import read_json
from harness.models.registry import embedded_folder, embedded_models, find_model
from harness.models.spec import ModelSpec
from harness.models.tensors import tensor_names

# What a snapshot must hold; pickled weights are never looked at.
_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
_PICKLES = ("*.bin", "*.pt", "*.pth")


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
    if spec.convert:
        raise _unconverted(spec)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(spec.source, revision=spec.revision, local_files_only=True, allow_patterns=list(_FILES)))
    except (LocalEntryNotFoundError, HFValidationError):
        raise _missing(spec) from None


def download(spec: ModelSpec) -> Path:
    """Fetch a hub model at its pinned commit; returns the folder in the hub's cache.

    What lies there already is not fetched again, and an interrupted download is resumed. Weights are safetensors, but for
    models that are still to be converted.
    Raises FitPruneError, in one line, for a model that is not on the hub, and for a hub that cannot be reached.
    """
    if spec.kind != "hub":
        where = embedded_folder(spec.name) if spec.kind == "embedded" else spec.source
        raise FitPruneError(f"'{spec.name}' needs no download: it is in {where}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its retries: what came of them is said below
    files = [*_FILES, *_PICKLES] if spec.convert else list(_FILES)
    try:
        return Path(snapshot_download(spec.source, revision=spec.revision, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        size, reason = f" ({spec.size})" if spec.size else "", " ".join(str(error).split())[:160]
        advice = (
            "unset HF_HUB_OFFLINE" if _offline() else "check the connection, HF_ENDPOINT and HF_TOKEN, and the space in HF_HOME"
        )
        raise FitPruneError(f"cannot download {spec.source}{size}: {reason}; {advice}, and run the command again") from None


def _download(spec: ModelSpec, into: str = "") -> str:
    size = f" ({spec.size})" if spec.size else ""
    revision = f" --revision {spec.revision}" if spec.revision else ""
    return f"download {spec.source}{size} with 'hf download {spec.source}{revision}{into}'"


def _missing(spec: ModelSpec) -> FitPruneError:
    resumed = ", which resumes the interrupted download" if _interrupted(spec) else ""
    offline = " and without HF_HUB_OFFLINE" if _offline() else ""
    return FitPruneError(
        f"the weights of '{spec.name}' are not on this machine: {_download(spec)}{offline}{resumed}, "
        "or set HF_HOME to where they are, "
        f"or take a model that ships with the package: --model {', '.join(embedded_models())}"
    )


def _unconverted(spec: ModelSpec) -> FitPruneError:
    source, command = spec.source.rpartition("/")[2], spec.convert
    return FitPruneError(
        f"'{spec.name}' is in its authors' layout: {_download(spec, f' --local-dir {source}')}, "
        f"convert it with '{command.replace('SOURCE', source).replace('TARGET', spec.name)}', "
        f"and pass the folder: --model ./{spec.name}"
    )


def _offline() -> bool:
    return bool(constants.HF_HUB_OFFLINE)


def _interrupted(spec: ModelSpec) -> bool:
    """A download of this repository has begun and not ended."""
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{spec.source.replace('/', '--')}" / "blobs"
    return any(blobs.glob("*.incomplete"))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in name order: what its index lists, else `model.safetensors`.

    Raises FitPruneError when there are none, or when the index names a file that is not there.
    """
    index = _index(folder)
    if index is not None:
        names = sorted(set(index.values()))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent or not names:
            raise FitPruneError(
                f"{folder}: {len(absent)} of {len(names)} weight files are missing"
                f"{f', e.g. {absent[0]}' if absent else ''}; the download is incomplete: run it again"
            )
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if not single.is_file():
        pickled = next((path.name for pattern in _PICKLES for path in sorted(folder.glob(pattern))), None)
        instead = f" ({pickled} is pickled, which may run code)" if pickled else ""
        raise FitPruneError(
            f"{folder}: no model.safetensors; only safetensors weights are read{instead} (save_pretrained writes them)"
        )
    return [single]


def _index(folder: Path) -> dict[str, str] | None:
    """Tensor name to file name, of a checkpoint in several files; None for one in a single file."""
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        return None
    names = read_json(path).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise FitPruneError(f"{path}: holds no weight_map; download the checkpoint again")
    return names


def _check_weights(folder: Path) -> None:
    """Every file whole, and holding exactly the tensors that the index says."""
    index = _index(folder)
    for path in weight_files(folder):
        held = tensor_names(path)
        listed = held if index is None else {name for name, file in index.items() if file == path.name}
        if listed != held:
            example = min(listed ^ held)
            where = "the index lists it here" if example in listed else "the index does not list it here"
            raise FitPruneError(
                f"{path}: index and file disagree on {len(listed ^ held)} tensors, e.g. {example} ({where}); "
                "they are of different downloads: download the checkpoint again"
            )


def check_folder(folder: Path) -> None:
    """Raise FitPruneError unless the folder holds a config, a processor, and safetensors as long as they say."""
    if not folder.is_dir():
        raise FitPruneError(f"model folder '{folder}' does not exist")
    config = folder / "config.json"
    if not config.is_file():
        raise FitPruneError(f"{folder}: no config.json; not a transformers checkpoint")
    if "model_type" not in read_json(config):
        raise FitPruneError(f"{config}: no model_type; not a transformers checkpoint")
    _check_weights(folder)
    if not any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        raise FitPruneError(
            f"{folder}: no processor_config.json or preprocessor_config.json; save the processor into the same folder"
        )
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise FitPruneError(f"{folder}: no tokenizer.json or tokenizer.model; save the processor into the same folder")


def digest(folder: Path) -> str:
    """12 hex digits of SHA-256 over config and weights: the revision of a checkpoint that has no commit."""
    total = hashlib.sha256()
    for path in (folder / "config.json", *weight_files(folder)):
        total.update(content_digest(path))
    return total.hexdigest()[:12]
