"""Writing a file whole or not at all, and where one can be written."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fitprune.errors import FitPruneError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file in the folder of `path` to write to: it becomes `path` at the end of the block, and goes after an error.

    So `path` is at every moment either what it was or the whole of what was written. A rename is only atomic within a file
    system, hence the folder. Who may read the file is for the umask to say. Once the block has ended, a power cut loses
    nothing of it.
    """
    temporary = path.parent / f".writing-{uuid.uuid4().hex}.tmp"
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        with temporary.open("rb+") as written:  # Windows flushes what is open for writing only
            os.fsync(written.fileno())
        os.replace(temporary, path)
        _flush_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_names(folder: Path) -> None:
    """Put a folder's names on the disk, where the system has a way to: Windows opens no folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_target(path: Path, verb: str = "write", makes_folder: bool = False) -> None:
    """Raise FitPruneError, before any work, unless a file can stand at `path`: not in a folder's place, and in a folder that is
    there, or with `makes_folder` in one whose own is.
    """
    folder = path.absolute().parent
    home = folder.parent if makes_folder else folder
    if path.is_dir() or folder.is_file() or not home.is_dir():
        problem = "it is a folder" if path.is_dir() else "its folder does not exist"
        raise FitPruneError(f"cannot {verb} {path}: {problem}")
