"""Reading an authors' checkpoint folder: its config, and its weights one shard at a time. Nothing in it is executed."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from fitprune.errors import FitPruneError
from harness.models.json_files import read_json

_NAMES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Shards:
    """The weight files of a checkpoint, in name order; `listed` are the tensors that its index names, if it has one."""

    files: tuple[Path, ...]
    listed: frozenset[str] | None = None


def find_shards(folder: Path) -> Shards:
    """The weights of a folder: safetensors where there are any, else .bin; sharded with an index, or one file.

    Raises FitPruneError when there are none, or when a shard that the index names is not there.
    """
    for name in _NAMES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            places = read_json(index).get("weight_map")
            if not isinstance(places, dict) or not places:
                raise FitPruneError(f"{index}: has no weight_map; download it again")
            names = sorted(set(places.values()))
            absent = [file for file in names if not (folder / file).is_file()]
            if absent:
                raise FitPruneError(
                    f"{folder}: {len(absent)} of {len(names)} shards are missing, e.g. {absent[0]}; download them again"
                )
            return Shards(tuple(folder / file for file in names), frozenset(places))
        if (folder / name).is_file():
            return Shards((folder / name,))
    raise FitPruneError(
        f"{folder}: no weights; expected pytorch_model.bin or model.safetensors, whole or sharded with an index"
    )


def read_shard(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one file, by their names in it, mapped from the disk where the format allows it.

    Raises FitPruneError for a damaged file, and for a .bin that holds anything but named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        else:
            # Files older than PyTorch 1.6 are no zip archives, and cannot be mapped.
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # unpickling raises whatever the bytes lead it to
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FitPruneError(f"{path}: damaged, or not a file of tensors alone; download it again ({first[:120]})") from None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise FitPruneError(f"{path}: holds something else than named tensors; not a checkpoint")
    return tensors
