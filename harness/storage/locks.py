"""`alone`: one process at a time, across processes and machines that share a folder; whoever waits says for whom."""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from harness.telling import PATIENCE, tell

_POLL = 0.05  # seconds between two attempts


@contextlib.contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Inside, no other process is inside with the same lock file. A process that dies gives up its locks.

    Args:
        what: what is done inside, for whoever waits longer than `PATIENCE`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with waiting(lambda: attempt(path), lambda: held_by(path), what, _POLL):
        yield


@contextlib.contextmanager
def waiting(
    attempt: Callable[[], Callable[[], None] | None], holder: Callable[[], str], what: str, poll: float
) -> Iterator[None]:
    """Inside, what `attempt` gives is held; until it gives something it is asked again every `poll` seconds.

    Args:
        holder: names who has it meanwhile, once somebody waits longer than `PATIENCE`, each time that this has passed.
    """
    since, told = time.monotonic(), False
    while (release := attempt()) is None:
        if time.monotonic() - since > PATIENCE:
            named, since = holder(), time.monotonic()
            if not told:
                tell(f"waiting for {named}, which is at {what}; --results DIR gives this run a folder of its own")
                told = True
        time.sleep(poll)
    try:
        yield
    finally:
        release()


def attempt(path: Path) -> Callable[[], None] | None:
    """What gives up a lock file in a folder that is there, if it could be had at once; else None."""
    lock, holder = FileLock(path, thread_local=False), path.with_suffix(".holder")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    with contextlib.suppress(OSError):
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")

    def release() -> None:
        holder.unlink(missing_ok=True)
        lock.release()

    return release


def held_by(path: Path) -> str:
    """Who holds a lock. One that a run on another file system has left is broken."""
    _break_if_left_behind(path)
    return named(lambda: path.with_suffix(".holder").read_text(encoding="utf-8"))


def named(read: Callable[[], str]) -> str:
    """The process of which a holder's record says that it has a lock."""
    try:
        found = json.loads(read())
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
