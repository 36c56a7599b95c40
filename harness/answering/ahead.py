"""Preparing ahead: the next items are made in a thread while the current one is worked on."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

_END = object()


@contextmanager
def ahead(make: Callable[[Item], Made], items: Iterable[Item], depth: int = 2) -> Generator[Generator[Made, None, None]]:
    """Inside, an iterator over `make(item)` for each item, in order, up to `depth` of them made before they are asked for.

    `make` runs in one thread, one item at a time; with a depth of 0 there is no thread, and each is made when asked for.
    What it or `items` raises is raised where the iterator has come to it, as if it had been made there. Leaving the
    context, for whatever reason, stops the thread and waits for it: at most one `make` is waited for.
    """
    if depth < 1:
        yield (make(item) for item in items)
        return
    ready: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def offer(entry: object) -> None:
        while not stop.is_set():
            try:
                return ready.put(entry, timeout=0.05)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                if stop.is_set():
                    return
                offer((make(item), None))
        except BaseException as error:
            offer((None, error))
        else:
            offer(_END)

    def results() -> Generator[Made, None, None]:
        while (entry := ready.get()) is not _END:
            made, error = entry
            if error is not None:
                raise error
            yield made

    thread = threading.Thread(target=work, name="preparing ahead", daemon=True)
    thread.start()
    try:
        yield results()
    finally:
        stop.set()
        thread.join()
