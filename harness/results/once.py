"""`RunFolder`: what several processes need and only one should work out: dense answers, recipes, latencies."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.results.key import digest_of
from harness.results.strict_json import dumps, loads
from harness.storage.places import Place, files_at


class RunFolder:
    """A folder that processes share: those of one run, or, inside a results folder, all runs."""

    def __init__(self, folder: Place) -> None:
        self.files = files_at(folder)

    def once(self, name: str, compute: Callable[[], Any], *, again: bool = False) -> Any:
        """The JSON value called `name`: computed by the first process that asks, read by the others, which wait for
        it meanwhile.

        A process that dies in `compute` gives up its lock, and the next one computes; an error is raised to its
        caller and not stored. A file that was damaged counts as none. With `again`, the value is computed in any case,
        and replaced.
        """
        found = None if again else self.get(name)
        if found is not None:
            return found[0]
        with self.files.lock(f"{name}.lock", name):
            found = None if again else self.get(name)
            if found is None:
                text = dumps(compute())
                value = json.loads(text)
                self.files.write(f"{name}.json", [f'{{"digest": "{digest_of(value)}", "value": {text}}}'])
                return value
        return found[0]

    def alone(self, name: str, compute: Callable[[], Any]) -> Any:
        """What `compute` returns, called while no other process is at the same name. Nothing is kept of it here."""
        with self.files.lock(f"{name}.lock", name):
            return compute()

    def get(self, name: str) -> tuple[Any] | None:
        """The value, alone in a tuple, or None while nobody has computed it, or where its file is damaged."""
        try:
            record = loads(self.files.read(f"{name}.json"))
            return (record["value"],) if record["digest"] == digest_of(record["value"]) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None


class ReadOnlyFolder(RunFolder):
    """The same folder for one who may not write: what is not there is computed for the caller alone, and not kept."""

    def once(self, name: str, compute: Callable[[], Any], *, again: bool = False) -> Any:
        found = None if again else self.get(name)
        return compute() if found is None else found[0]

    def alone(self, name: str, compute: Callable[[], Any]) -> Any:
        return compute()


def readable(name: str) -> str:
    """A part of a file name for a model's name, which may be a path."""
    return "".join(char if char.isalnum() or char in ".-" else "_" for char in Path(name).name)


def slug(name: str) -> str:
    """A file name for a model's name, which may be a path: readable, and unique."""
    return f"{readable(name)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
