"""The store on a system that has none of what only POSIX has, and flushes and opens as Windows does."""

import json
import os
import subprocess
import sys

import pytest

from harness.results.store import Store

# Run in a process of its own, before anything else is imported there.
WITHOUT = """
import errno, fcntl, os, signal, sys
flags = fcntl.fcntl
for name in ("fchmod", "fchown", "chown", "fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "getpgid", "killpg",
             "sched_getaffinity", "sched_setaffinity", "register_at_fork", "O_DIRECTORY", "O_CLOEXEC", "getloadavg", "wait4"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGCONT"):
    delattr(signal, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog"):
    sys.modules[name] = None
plain_open, plain_fsync = os.open, os.fsync

def opened(path, *given, **named):
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "a folder", path)
    return plain_open(path, *given, **named)

def flushed(descriptor):
    if flags(descriptor, 3) & 3 == os.O_RDONLY:
        raise OSError(errno.EBADF, "not open for writing")
    plain_fsync(descriptor)

os.open, os.fsync = opened, flushed
"""

STORE = """
from pathlib import Path
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.plugin import cell, options, parametrize, plugin, session
from harness.cores import available_cores
from harness.storage.locks import _break_if_left_behind
from tests.support.results import answers, result

store = Store("results")
store.check_writable()
with store.lock("k", "a cell"):
    journal = store.journal("k")
    journal.append({"keys": [1]})
    assert store.journal("k").entries == [{"keys": [1]}]
    store.write(result(), answers(), answers(score=0.0))
    journal.remove()
assert store.shared.once("a value", lambda: {"one": 1}) == {"one": 1}
assert available_cores() >= 1
left = Path("left.lock")
left.touch()
_break_if_left_behind(left)
assert left.exists()
(read,), notes = store.read_all()
print(read.score, len(store.read_answers(read)), notes)
"""


@pytest.mark.exhaustive
def test_the_store_needs_nothing_that_only_posix_has(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT + STORE],
        env=kept | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.splitlines()[-1] == "80.0 3 []"
    (read,), _ = Store(tmp_path / "results").read_all()
    assert read.score == 80.0
    shared = json.loads((tmp_path / "results/shared/a value.json").read_text())
    assert shared["value"] == {"one": 1}
    assert not list((tmp_path / "results").rglob(".writing-*"))
