"""`ObjectFiles`: files in an object store, by an fsspec URL: `s3://bucket/results`, `gs://…`, `memory://…`.

An object store has no rename, no append and no lock. An object is there whole or not at all; each line of a log is an object of
its own; and a lock is an object that is written only where there is none (a conditional write), and written anew while its
holder lives. A lock without a sign of life is broken. Should two break one at the same moment, both work at one thing: what
they write is the same, under the same names.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError
from harness.storage.files import Files, Stems, carried
from harness.storage.locks import named, waiting

ALIVE = 20.0  # seconds between two signs of life of who holds a lock
LEFT = 120.0  # seconds without one, then a lock is nobody's
_POLL = 1.0  # seconds between two attempts
_FRESH = 30.0  # seconds that the names of other processes' results may be old
_LOG = ".jsonl"  # how logs are called


def open_url(url: str) -> "ObjectFiles":
    """The files at a URL. Raises FitPruneError, in one line, for a URL that nothing here can read."""
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise FitPruneError(f"results at {url}: {' '.join(str(error).split())}") from None
    return ObjectFiles(system, path.rstrip("/"), url.rstrip("/"))


class ObjectFiles(Files):
    """Files below a path of an fsspec file system."""

    def __init__(self, system: Any, path: str, place: str) -> None:
        self.system = system
        self.path = path
        self.place = place
        self._stems = Stems()
        self._written = 0
        self._ends: dict[str, int] = {}
        self._seen: dict[str, tuple[bytes, float]] = {}

    def read(self, name: str) -> str:
        return self.system.cat_file(self._at(name)).decode()

    def write(self, name: str, parts: Iterable[str]) -> None:
        self._written += 1
        self.system.pipe_file(self._at(name), "".join(parts).encode())

    def remove(self, name: str) -> None:
        self._ends.pop(name, None)
        with contextlib.suppress(FileNotFoundError):
            self.system.rm(self._at(name), recursive=name.endswith(_LOG))

    def move(self, name: str, new: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.write(new, [self.read(name)])
            self.remove(name)

    def names(self, folder: str = "") -> list[str]:
        found = self._entries(folder)
        return sorted(name for name, is_folder in found.items() if not is_folder or name.endswith(_LOG))

    def folders(self, folder: str = "") -> list[str]:
        return sorted(name for name, is_folder in self._entries(folder).items() if is_folder)

    def stems(self, part: str) -> list[str]:
        return self._stems.of(part, (self._written, time.monotonic() // _FRESH), self.names)

    def read_log(self, name: str) -> bytes:
        return b"".join(self.system.cat_file(self._at(f"{name}/{line}")) for line in self.names(name))

    def append(self, name: str, line: bytes) -> None:
        if name not in self._ends:
            self._ends[name] = max((int(line) for line in self.names(name)), default=-1)
        while not self._created(f"{name}/{self._ends[name] + 1:08d}", line):
            self._ends[name] += 1
        self._ends[name] += 1

    def cut(self, name: str, length: int) -> None:
        for line in self.names(name):
            content = self.system.cat_file(self._at(f"{name}/{line}"))
            if len(content) > length:
                self.remove(f"{name}/{line}")
            length -= len(content)
        self._ends.pop(name, None)

    def attempt(self, name: str) -> Callable[[], None] | None:
        who = {"pid": os.getpid(), "host": socket.gethostname(), "token": uuid.uuid4().hex}
        if not self._created(name, _signed(who, 0)):
            self._break_if_left(name)
            return None
        ended = threading.Event()

        def live() -> None:
            beat = 0
            while not ended.wait(ALIVE):
                beat += 1
                with contextlib.suppress(Exception):  # the next sign may come through
                    self.system.pipe_file(self._at(name), _signed(who, beat))

        thread = threading.Thread(target=live, daemon=True)
        thread.start()

        def release() -> None:
            ended.set()
            thread.join()
            self.remove(name)

        return release

    def lock(self, name: str, what: str) -> contextlib.AbstractContextManager[None]:
        return waiting(lambda: self.attempt(name), lambda: named(lambda: self.read(name)), what, _POLL)

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        there = {file: self.system.cat_file(self._at(f"{name}/{file}")) for file in self.names(name)}
        with carried(there, lambda file, content: self.system.pipe_file(self._at(f"{name}/{file}"), content)) as folder:
            yield folder

    def below(self, folder: str) -> "ObjectFiles":
        return ObjectFiles(self.system, self._at(folder), f"{self.place}/{folder}")

    def check_writable(self) -> None:
        name = f".write-test-{uuid.uuid4().hex}"
        try:
            self.system.pipe_file(self._at(name), b"")
            self.system.rm(self._at(name))
        except Exception as error:  # a store's own errors are of no common type
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise FitPruneError(f"results at {self.place} cannot be written ({said}); give another with --results") from None

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}" if name not in ("", ".") else self.path

    def _entries(self, folder: str) -> dict[str, bool]:
        """The names in a folder, and whether each is a folder."""
        try:
            found = self.system.ls(self._at(folder), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        named = {entry["name"].rstrip("/").rpartition("/")[2]: entry["type"] == "directory" for entry in found}
        return {name: is_folder for name, is_folder in named.items() if name and not name.startswith(".")}

    def _created(self, name: str, content: bytes) -> bool:
        """Write an object where there is none; whether there was none."""
        try:
            self.system.pipe_file(self._at(name), content, mode="create")
        except OSError:  # s3fs has another kind than FileExistsError for a precondition that failed
            if not self.system.exists(self._at(name)):
                raise
            return False
        return True

    def _break_if_left(self, name: str) -> None:
        """Remove a lock that has shown no sign of life for long."""
        try:
            content = self.system.cat_file(self._at(name))
        except FileNotFoundError:
            return
        before, since = self._seen.get(name, (b"", 0.0))
        if content != before:
            self._seen[name] = content, time.monotonic()
        elif time.monotonic() - since > LEFT:
            self.remove(name)


def _signed(who: dict[str, Any], beat: int) -> bytes:
    return json.dumps(who | {"beat": beat}).encode()
