"""Work that several processes of one run need and only one should do: dense answers, recipes, latencies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.store import dumps, write_atomically


class RunFolder:
    """A folder that the processes of one run share. `once` is the only thing they do in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """The JSON value called `name`: computed by the first process that asks, read by the others, which wait for
        it meanwhile.

        A process that dies in `compute` gives up its lock, and the next one computes; an error is raised to its
        caller and not stored.
        """
        path = self.folder / f"{name}.json"
        if not path.exists():
            with FileLock(self.folder / f"{name}.lock"):
                if not path.exists():
                    write_atomically(path, [dumps(compute())])
        return json.loads(path.read_text(encoding="utf-8"))
