"""`TensorStore`: dictionaries of tensors on disk, under names; `digest`: what identifies texts and tensors."""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from fitprune.errors import FitPruneError
from fitprune.files import replacing


def digest(*parts: str | Mapping[str, torch.Tensor]) -> str:
    """32 hex digits that identify texts and tensors: names, types, shapes and every byte."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            total.update(part.encode() + b"\0")
            continue
        for name in sorted(part):
            value = part[name].detach().cpu().contiguous()
            total.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
            total.update(value.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


class TensorStore:
    """Tensors in a folder: the caller's own, which stays, or a temporary one, which is deleted with the object unless kept.

    Memory need hold one dictionary at a time, and an interruption loses little.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._discard: weakref.finalize | None = None
        if folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="fitprune-"))
            self._discard = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
            return
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FitPruneError(f"cannot keep statistics in {folder}: {error.strerror}.") from None

    def keep(self) -> Path:
        """Let a temporary folder outlive the object; returns the folder."""
        if self._discard is not None:
            self._discard.detach()
        return self.folder

    def put(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write a dictionary under `name`, whole or not at all."""
        path = self._path(name)
        try:
            with replacing(path) as temporary:
                save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, temporary)
        except (OSError, SafetensorError) as error:
            raise FitPruneError(f"cannot write {path}: {' '.join(str(error).split())}") from None

    def has(self, name: str) -> bool:
        """Whether a whole file lies under `name`. Only its header is read, which states the length of the file."""
        try:
            with safe_open(self._path(name), "pt"):
                return True
        except (OSError, SafetensorError):
            return False

    def get(self, name: str) -> dict[str, torch.Tensor] | None:
        """The dictionary written under `name`, on the CPU; None where there is none, or no readable one."""
        try:
            return load_file(self._path(name))
        except (OSError, SafetensorError):
            return None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
