"""`content_digest`: the SHA-256 of a file, which is read once for each state that it is found in."""

import functools
import hashlib
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from harness.results.once import RunFolder
from harness.telling import PATIENCE, tell

# Smaller files are read as quickly as a remembered digest.
LARGE = 1 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}")


def content_digest(path: Path) -> bytes:
    """SHA-256 of a file's content.

    The hub's cache names large files by it, and they need not be read. Other large files are read once for each state (path,
    size and time of the last change); the digest is remembered in the hub's home, `$HF_HOME/fitprune/digests`.
    """
    target = path.resolve()
    if path.is_symlink() and _SHA256.fullmatch(target.name):
        return bytes.fromhex(target.name)
    state = target.stat()
    return _remembered(target, state.st_size, state.st_mtime_ns)


@functools.cache
def _remembered(path: Path, size: int, changed: int) -> bytes:
    """SHA-256 of what a file holds in the state of that size and time."""
    if size < LARGE:
        return _read(path)
    state = hashlib.sha256(f"{path} {size} {changed}".encode()).hexdigest()[:32]
    return bytes.fromhex(remembered(state, lambda: _read(path).hex()))


def remembered(name: str, compute: Callable[[], Any]) -> Any:
    """A JSON value that is computed once on this machine, whichever process or run comes first."""
    try:
        return RunFolder(home() / "digests").once(name, compute)
    except OSError:  # a home that cannot be written
        return compute()


def home() -> Path:
    """The folder for what is remembered of files, in the hub's home."""
    return Path(constants.HF_HOME) / "fitprune"


def _read(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(_Watched(file, path.stat().st_size), "sha256").digest()  # type: ignore[arg-type]


class _Watched:
    """A file that is being read from end to end: a line says how far, from time to time."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self.name, self.readable = file.name, file.readable
        self._file, self._size, self._done, self._told = file, size, 0, time.monotonic()

    def readinto(self, buffer: bytearray) -> int:
        read = self._file.readinto(buffer)
        self._done += read
        if time.monotonic() - self._told > PATIENCE:
            self._told = time.monotonic()
            tell(f"{self.name}: {self._done / 1e9:.1f} of {self._size / 1e9:.1f} GB read for its digest")
        return read
