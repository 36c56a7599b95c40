"""Writing a file whole or not at all, and where one can be written."""

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fitprune.errors import FitPruneError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file in the folder of `path` to write to: it becomes `path` at the end of the block, and goes after an error.

    A link stays one: the file that it leads to is replaced. What is no file, a pipe or a terminal, is written itself.

    So `path` is at every moment either what it was or the whole of what was written. A rename is only atomic within a file
    system, hence the folder. Who may read the file is for the umask to say. Once the block has ended, a power cut loses
    nothing of it.
    """
    if is_written_through(path):
        yield path
        return
    path = Path(os.path.realpath(path))
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


def write_atomically(path: Path, parts: Iterable[str]) -> None:
    """Write a text file so that `path` is at every moment either what it was or the whole of `parts`."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(parts)


def _flush_names(folder: Path) -> None:
    """Put a folder's names on the disk, where the system has a way to: Windows opens no folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_written_through(path: Path) -> bool:
    """Whether `path` is a pipe or a device, which no file can replace; so too /dev/stdout that leads to a file."""
    return not path.is_dir() and (path.is_relative_to("/dev") or (path.exists() and not path.is_file()))


def check_folder(folder: Path, what: str) -> None:
    """Raise FitPruneError, before any work, unless `folder` is one that can be written in, or can be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir() or not os.access(there, os.W_OK):
        problem = "cannot be written in" if there.is_dir() else "is a file"
        raise FitPruneError(f"cannot write {what} to {folder}: {'it' if there == folder.absolute() else there} {problem}")


def check_target(path: Path, verb: str = "write", makes_folder: bool = False) -> None:
    """Raise FitPruneError, before any work, unless a file can stand at `path`: not in a folder's place, and in a folder that is
    there, or with `makes_folder` in one whose own is.
    """
    folder = Path(os.path.realpath(path)).parent
    home = folder.parent if makes_folder else folder
    if is_written_through(path) and os.access(path, os.W_OK):
        return
    problem = ""
    if path.name == "-":
        problem = "it is no name of a file; /dev/stdout is where a command prints"
    elif path.is_dir():
        problem = "it is a folder"
    elif folder.is_file() or not home.is_dir():
        problem = "its folder does not exist"
    elif not os.access(folder if folder.is_dir() else home, os.W_OK):
        problem = "its folder cannot be written in"
    if problem:
        raise FitPruneError(f"cannot {verb} {path}: {problem}")
