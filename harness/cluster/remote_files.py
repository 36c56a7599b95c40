"""`RemoteFiles`: the driver's files, as a worker sees them: each call is a question to the driver, which alone has files."""

import contextlib
import queue
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.cluster.messages import Answer, Ask, Message
from harness.storage.files import Files, carried


class Channel:
    """The worker's end of the talk with the driver: one message to it, one back.

    Attributes:
        deaf: whether the driver has all of the cell and minds what is left of it itself.
    """

    def __init__(self) -> None:
        self.sent: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.deaf = False

    def ask(self, message: Message) -> Any:
        """What the driver says to a message. Raises what it could not do."""
        self.sent.put(message)
        answer = self.received.get()
        if isinstance(answer, Answer) and answer.error is not None:
            raise answer.error
        return answer.value if isinstance(answer, Answer) else answer


class RemoteFiles(Files):
    """The files of a place, "results" or "run", or in one of its folders."""

    def __init__(self, channel: Channel, root: str, prefix: str = "") -> None:
        self.channel = channel
        self.root = root
        self.prefix = prefix
        self.place = f"the driver's {root}{'/' * bool(prefix)}{prefix.rstrip('/')}"

    def _ask(self, call: str, name: str, *given: Any) -> Any:
        return None if self.channel.deaf else self.channel.ask(Ask(self.root, call, (self.prefix + name, *given)))

    def read(self, name: str) -> str:
        return self._ask("read", name)

    def write(self, name: str, parts: Iterable[str]) -> None:
        self._ask("write", name, ["".join(parts)])

    def remove(self, name: str) -> None:
        self._ask("remove", name)

    def move(self, name: str, new: str) -> None:
        self._ask("move", name, self.prefix + new)

    def names(self, folder: str = "") -> list[str]:
        return self._ask("names", folder) or []

    def folders(self, folder: str = "") -> list[str]:
        return self._ask("folders", folder) or []

    def stems(self, part: str) -> list[str]:
        return self._ask("stems", part)

    def read_log(self, name: str) -> bytes:
        return self._ask("read_log", name)

    def append(self, name: str, line: bytes) -> None:
        self._ask("append", name, line)

    def cut(self, name: str, length: int) -> None:
        self._ask("cut", name, length)

    def attempt(self, name: str) -> Callable[[], None] | None:
        raise NotImplementedError("the driver waits for a lock in a worker's place")

    @contextlib.contextmanager
    def lock(self, name: str, what: str) -> Iterator[None]:
        self._ask("lock", name, what)
        try:
            yield
        finally:
            self._ask("unlock", name)

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Its files come from the driver, and those that are new go back to it."""
        with carried(self._ask("fetch", name), lambda file, content: self._ask("store", name, file, content)) as folder:
            yield folder

    def below(self, folder: str) -> "RemoteFiles":
        return RemoteFiles(self.channel, self.root, f"{self.prefix}{folder}/")

    def check_writable(self) -> None:
        """The driver has checked before."""
