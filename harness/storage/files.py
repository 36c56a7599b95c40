"""`Files`: a place for results: texts, each written whole or not at all; logs, which grow by lines; locks. `Folder` is on disk.

Names are relative, with `/` between their parts. What is not there raises FileNotFoundError; what cannot be done, OSError.
"""

import contextlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from fitprune.errors import FitPruneError
from fitprune.files import write_atomically
from harness.storage.locks import alone, attempt


class Files(Protocol):
    """A place for files.

    Attributes:
        place: for people.
    """

    place: str

    def read(self, name: str) -> str:
        """A text."""

    def write(self, name: str, parts: Iterable[str]) -> None:
        """Write a text so that under its name there is at every moment either what was there or the whole of `parts`."""

    def remove(self, name: str) -> None:
        """Remove a text or a log, if it is there."""

    def names(self, folder: str = "") -> list[str]:
        """The names, in order, of what lies in a folder itself, without the folder's; none where there is no such folder."""

    def folders(self, folder: str = "") -> list[str]:
        """The names of the folders in a folder."""

    def read_log(self, name: str) -> bytes:
        """What was appended so far; nothing where nothing was."""

    def append(self, name: str, line: bytes) -> None:
        """Add to a log. Once this has returned, the death of the process does not lose the line."""

    def cut(self, name: str, length: int) -> None:
        """Forget what stands in a log behind its first bytes."""

    def attempt(self, name: str) -> Callable[[], None] | None:
        """What gives up the lock of that name, if it could be had at once; else None."""

    def lock(self, name: str, what: str) -> contextlib.AbstractContextManager[None]:
        """Inside, nobody else is inside with the same name; `what` is done there, for those who wait."""

    def folder(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A folder on this machine for what writes files of its own, with what was left there; it is kept at the end."""

    def below(self, folder: str) -> "Files":
        """The files in a folder, as a place of its own."""

    def check_writable(self) -> None:
        """Raise FitPruneError, in one line, if nothing could be written here. Leaves nothing behind."""

    def move(self, name: str, new: str) -> None:
        """Give a text another name, if it is there."""

    def stems(self, part: str) -> list[str]:
        """The names, without `.json`, of the files that end in `-part`, or of which all before the last `-` is `part`."""


class Stems:
    """What `Files.stems` looks names up in."""

    def __init__(self) -> None:
        self._known: tuple[Hashable, Mapping[str, list[str]]] = (object(), {})

    def of(self, part: str, state: Hashable, names: Callable[[], list[str]]) -> list[str]:
        """`state` is another as soon as there is another name: then names are read again."""
        if self._known[0] != state:
            by_part: dict[str, list[str]] = defaultdict(list)
            for stem in (name.removesuffix(".json") for name in names() if name.endswith(".json")):
                for own in stem.rpartition("-")[::2]:
                    by_part[own].append(stem)
            self._known = state, by_part
        return list(self._known[1].get(part, ()))


class Folder(Files):
    """Files in a folder on disk. Making the object touches nothing; the folder appears with the first file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.place = str(path)
        self._stems = Stems()

    def read(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def write(self, name: str, parts: Iterable[str]) -> None:
        self._stems = Stems()  # a file system's clock may tell two changes from one another only after some milliseconds
        write_atomically(self._made(name), parts)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def move(self, name: str, new: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.path / name).replace(self.path / new)

    def stems(self, part: str) -> list[str]:
        try:
            return self._stems.of(part, self.path.stat().st_mtime_ns, self.names)
        except OSError:
            return []

    def names(self, folder: str = "") -> list[str]:
        return sorted(entry.name for entry in self._entries(folder) if not entry.name.startswith(".") and entry.is_file())

    def folders(self, folder: str = "") -> list[str]:
        return sorted(entry.name for entry in self._entries(folder) if entry.is_dir())

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / folder) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read_log(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return b""

    def append(self, name: str, line: bytes) -> None:
        with self._made(name).open("ab", buffering=0) as file:  # one write, straight to the operating system
            file.write(line)

    def cut(self, name: str, length: int) -> None:
        os.truncate(self.path / name, length)

    def attempt(self, name: str) -> Callable[[], None] | None:
        return attempt(self._made(name))

    def lock(self, name: str, what: str) -> contextlib.AbstractContextManager[None]:
        return alone(self.path / name, what)

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        yield self.path / name

    def below(self, folder: str) -> "Folder":
        return Folder(self.path / folder)

    def check_writable(self) -> None:
        path = self.path.absolute()
        existing = next(each for each in (path, *path.parents) if os.path.lexists(each))
        if not existing.is_dir():
            raise FitPruneError(f"results folder {self.path}: {existing} is not a folder; give another with --results")
        try:
            with tempfile.TemporaryDirectory(prefix=".write-test-", dir=existing):
                pass
        except OSError as error:
            raise FitPruneError(
                f"results folder {self.path} cannot be written ({error.strerror}); give another with --results"
            ) from None

    def _made(self, name: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextlib.contextmanager
def carried(files: Mapping[str, bytes], put: Callable[[str, bytes], None]) -> Iterator[Path]:
    """A folder of this machine with these files; at the end those that are new, or were written, are put where they belong."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        for name, content in files.items():
            (there / name).write_bytes(content)
        known = {path.name: path.stat().st_mtime_ns for path in there.iterdir()}
        try:
            yield there
        finally:
            for path in there.iterdir():
                if path.is_file() and path.stat().st_mtime_ns != known.get(path.name):
                    put(path.name, path.read_bytes())
