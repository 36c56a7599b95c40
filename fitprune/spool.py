"""Batches of tensors on disk, so that memory holds one batch at a time."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


class Spool:
    """A sequence of dictionaries of tensors in a temporary folder, deleted with the object."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fitprune-")
        self._files: list[Path] = []

    def __len__(self) -> int:
        return len(self._files)

    def add(self, tensors: dict[str, torch.Tensor]) -> None:
        """Write one dictionary."""
        path = Path(self._folder.name) / f"{len(self._files)}.safetensors"
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, path)
        self._files.append(path)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for path in self._files:
            yield load_file(path)
