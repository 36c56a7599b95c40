"""`content_digest`: the SHA-256 of a file, which is read once for each state that it is found in."""

import functools
import hashlib
import re
from pathlib import Path

from harness.results.once import RunFolder

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
    from huggingface_hub import constants

    state = hashlib.sha256(f"{path} {size} {changed}".encode()).hexdigest()[:32]
    try:
        folder = RunFolder(Path(constants.HF_HOME) / "fitprune" / "digests")
        return bytes.fromhex(folder.once(state, lambda: _read(path).hex()))
    except OSError:  # a home that cannot be written
        return _read(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
