"""Are safetensors files whole? Told from their headers, without torch."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fitprune.errors import FitPruneError

# What git leaves in place of a large file that was not fetched.
_POINTER = b"version https://git-lfs"


def tensor_names(path: Path) -> set[str]:
    """The tensors of a file. Raises FitPruneError, in one line, for a Git LFS pointer and for a file that is not whole."""
    with _opened(path) as file:
        return set(file.keys())


def parameters(path: Path) -> int:
    """Numbers in all tensors of a file; errors as in `tensor_names`."""
    with _opened(path) as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no dict


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        opened = safe_open(path, "numpy")
    except SafetensorError as error:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise FitPruneError(
                    f"{path}: a Git LFS pointer, not the weights; run 'git lfs pull' in that folder, or download with "
                    "'hf download'"
                ) from None
        reason = str(error).rpartition("header: ")[2]
        raise FitPruneError(
            f"{path}: truncated or not a safetensors file ({path.stat().st_size} bytes, {reason}); download or save it again"
        ) from None
    with opened as file:
        yield file
