"""`alone`: one process at a time, across processes and machines that share a folder; whoever waits says for whom."""

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from harness.telling import PATIENCE, tell


@contextlib.contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Inside, no other process is inside with the same lock file. A process that dies gives up its locks.

    Args:
        what: what is done inside, for whoever waits longer than `PATIENCE`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(path), path.with_suffix(".holder")
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        tell(f"waiting for {_named(holder)}, which is at {what}; --results DIR gives this run a folder of its own")
        while not lock.is_locked:
            _break_if_left_behind(path)
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=PATIENCE)
    try:
        with contextlib.suppress(OSError):
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _named(holder: Path) -> str:
    """Who holds a lock."""
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _break_if_left_behind(path: Path) -> None:
    """Remove the empty lock file that a run on another file system has left, where files are locked by being there.

    Such a lock file names its holder from the first moment on; one without content is nobody's.
    """
    try:
        if path.stat().st_size == 0 and not _has_flock(path):
            path.unlink()
    except OSError:
        return


def _has_flock(path: Path) -> bool:
    """Whether the file system of an existing file has locks of its own."""
    try:
        import fcntl
    except ImportError:  # Windows has others
        return True
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno != errno.ENOSYS
    return True
