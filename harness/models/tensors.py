"""Are safetensors files whole? Read from their headers, without torch.

The format: 8 bytes with the header's length (little endian), a JSON header with every tensor's dtype, shape and place, the
tensors.
"""

import json
import math
import struct
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError

# What git leaves in place of a large file that was not fetched.
_POINTER = b"version https://git-lfs"
# The format's own limit; a larger number is not a header's length.
_LONGEST_HEADER = 100_000_000
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "U8": 1, "I8": 1, "BOOL": 1}


def check_tensors(path: Path) -> None:
    """Raise FitPruneError, in one line, for a Git LFS pointer, a truncated file or one that is no safetensors file."""
    header, start, size = _header(path, path.stat().st_mtime_ns)
    ends = [0]
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if begin < 0 or end - begin != _nbytes(entry, end - begin):
            raise FitPruneError(f"{path}: tensor {name} has {end - begin} bytes for its shape; download or save it again")
        ends.append(end)
    if size != start + max(ends):
        raise _damaged(path, size)


def tensor_names(path: Path) -> set[str]:
    """The tensors of a file."""
    return set(_header(path, path.stat().st_mtime_ns)[0])


def parameters(path: Path) -> int:
    """Numbers in all tensors of a file."""
    return sum(math.prod(entry["shape"]) for entry in _header(path, path.stat().st_mtime_ns)[0].values())


def _nbytes(entry: Mapping[str, Any], held: int) -> int:
    """Bytes of a tensor by its shape; `held` for a dtype that is not known here."""
    return math.prod(entry["shape"]) * _BYTES[entry["dtype"]] if entry["dtype"] in _BYTES else held


def _damaged(path: Path, size: int) -> FitPruneError:
    return FitPruneError(f"{path}: truncated or not a safetensors file ({size} bytes); download or save it again")


@lru_cache(maxsize=64)
def _header(path: Path, changed: int) -> tuple[dict[str, dict[str, Any]], int, int]:
    """The header, where the tensors start, and the file's size. `changed` keeps a rewritten file apart."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) == 8 and start == _POINTER[:8]:
            raise FitPruneError(
                f"{path}: a Git LFS pointer, not the weights; run 'git lfs pull' in that folder, or download with 'hf download'"
            )
        if len(start) < 8:
            raise _damaged(path, size)
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, _LONGEST_HEADER):
            raise _damaged(path, size)
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for entry in header.values():
                begin, end = entry["data_offsets"]
                math.prod(entry["shape"]), entry["dtype"], end - begin
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise _damaged(path, size) from None
    return header, 8 + length, size
