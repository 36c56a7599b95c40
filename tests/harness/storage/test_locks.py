"""Two processes at one thing: one waits, says for whom, and hangs on nobody's lock."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from harness import telling as telling_module
from harness.storage import locks
from harness.storage.locks import alone
from harness.telling import tell, telling


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.2)


def test_whoever_waits_says_for_whom_and_at_what(tmp_path):
    path, inside, lines = tmp_path / "locks" / "k.lock", [], []
    holder = (
        "import sys, time\nfrom pathlib import Path\nfrom harness.storage.locks import alone\n"
        f"with alone(Path({str(path)!r}), 'a cell'):\n    print('in', flush=True)\n    sys.stdin.readline()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "in\n"

    def wait():
        with telling(lines.append), alone(path, "fitprune 0.5 on gqa"):
            inside.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not lines:
        time.sleep(0.01)
    assert not inside
    other.communicate("\n")
    waiting.join(timeout=20)
    assert inside
    assert lines == [
        f"waiting for process {other.pid} on {socket.gethostname()}, which is at fitprune 0.5 on gqa; "
        "--results DIR gives this run a folder of its own"
    ]
    assert not path.with_suffix(".holder").exists()


def test_inside_the_holder_is_named(tmp_path):
    with alone(tmp_path / "k.lock", "it"):
        assert json.loads((tmp_path / "k.holder").read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
    with alone(tmp_path / "k.lock", "it"):  # again: it was given up
        pass


def test_an_empty_lock_file_where_files_are_locked_by_being_there_is_nobodys(tmp_path, monkeypatch):
    """A file system without flock, into which a run on another one was copied."""
    import fcntl

    def no_flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    path = tmp_path / "k.lock"
    path.touch()
    done = []

    def enter():
        with telling(lambda line: None), alone(path, "it"):
            done.append("in")

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert done == ["in"]


def test_lines_go_to_the_innermost_listener_else_to_stderr(capsys):
    outer, inner = [], []
    with telling(outer.append):
        tell("a")
        with telling(inner.append):
            tell("b")
        tell("c")
    tell("d")
    assert (outer, inner) == (["a", "c"], ["b"])
    assert capsys.readouterr().err == "d\n"
    assert telling_module._listeners == []
