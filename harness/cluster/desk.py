"""`Desk`: the driver's answers to what workers ask of its files. A lock that another holds is waited for without blocking."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitprune.files import replacing
from harness.cluster.messages import Answer, Ask
from harness.storage.files import Files
from harness.telling import PATIENCE, tell


@dataclass
class _Waiting:
    """A worker that waits for a lock."""

    ask: Ask
    since: float
    told: bool = False


_Locks = dict[tuple[str, str], Callable[[], None]]
"""What gives up each lock of a worker, by place and name."""


class Desk:
    """Answers workers.

    Args:
        places: "results", which outlives the run, and "run".
    """

    def __init__(self, places: Mapping[str, Files], clock: Callable[[], float] = time.monotonic) -> None:
        self.places = places
        self.clock = clock
        self._held: dict[int, _Locks] = {}
        self._waiting: dict[int, _Waiting] = {}

    def answer(self, worker: int, ask: Ask) -> Answer | None:
        """The answer, or None: it waits for a lock, and `granted` will have it."""
        held = self._held.setdefault(worker, {})
        files, (name, *given) = self.places[ask.place], ask.given
        try:
            if ask.call == "lock":
                if not self._take(held, ask):
                    self._waiting[worker] = _Waiting(ask, self.clock())
                    return None
                return Answer()
            if ask.call == "unlock":
                held.pop((ask.place, name))()
                return Answer()
            if ask.call in ("fetch", "store"):
                with files.folder(name) as folder:
                    return Answer(_fetched(folder) if ask.call == "fetch" else _stored(folder, *given))
            return Answer(getattr(files, ask.call)(name, *given))
        except (OSError, ValueError) as error:
            return Answer(error=error)

    def granted(self) -> list[int]:
        """The workers that waited for a lock and have it now."""
        got = [worker for worker, waiting in self._waiting.items() if self._take(self._held[worker], waiting.ask)]
        for worker in got:
            del self._waiting[worker]
        for waiting in self._waiting.values():
            elsewhere = waiting.ask.given[0] not in {name for held in self._held.values() for _, name in held}
            if elsewhere and not waiting.told and self.clock() - waiting.since > PATIENCE:
                waiting.told = True
                tell(
                    f"waiting for another run, which is at {waiting.ask.given[1]}; --results gives this run a place of its own"
                )
        return got

    @property
    def waiting(self) -> bool:
        """Whether a worker waits for a lock."""
        return bool(self._waiting)

    def dismiss(self, worker: int) -> Callable[[], None]:
        """A worker's cell has ended, or it is gone: what gives up its locks, once the caller has written down what it gave."""
        self._waiting.pop(worker, None)
        held = self._held.pop(worker, {})

        def give_up() -> None:
            while held:
                held.popitem()[1]()

        return give_up

    def _take(self, held: _Locks, ask: Ask) -> bool:
        release = self.places[ask.place].attempt(ask.given[0])
        if release is not None:
            held[ask.place, ask.given[0]] = release
        return release is not None


def _fetched(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} if folder.is_dir() else {}


def _stored(folder: Path, name: str, content: bytes) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / Path(name).name) as temporary:
        temporary.write_bytes(content)
