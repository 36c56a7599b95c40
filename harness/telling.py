"""`tell`: a line for whoever watches a run: how far a long cell is, and for whom it waits."""

import contextlib
import sys
from collections.abc import Callable, Iterator

PATIENCE = 10.0  # seconds until something is worth a line

_listeners: list[Callable[[str], None]] = []


def tell(line: str) -> None:
    """Say a line where `telling` says, else on stderr."""
    if _listeners:
        _listeners[-1](line)
    else:
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def telling(listener: Callable[[str], None]) -> Iterator[None]:
    """Inside, `listener` is handed the lines."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
