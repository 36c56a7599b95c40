"""Preparing ahead: the next items are made in a thread while the current one is worked on."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


@contextmanager
def ahead(make: Callable[[Item], Made], items: Iterable[Item], depth: int = 2) -> Generator[Iterator[Made], None, None]:
    """Inside, an iterator over `make(item)` for each item, in order, up to `depth` of them made before they are asked for.

    `make` runs in one thread, one item at a time; with a depth of 0 there is no thread, and each is made when asked for.
    What it or `items` raises is raised where the iterator has come to it, as if it had been made there. Leaving the
    context, for whatever reason, stops the thread and waits for it: at most one `make` is waited for.
    """
    if depth < 1:
        yield map(make, items)
        return
    left = iter(items)

    def next_one() -> list[Made]:
        """Of the next item, alone in a list; the list is empty where no item is left."""
        return [make(item) for item in islice(left, 1)]

    with ThreadPoolExecutor(1, "preparing ahead") as thread:
        waiting = deque(thread.submit(next_one) for _ in range(depth + 1))

        def results() -> Iterator[Made]:
            while made := waiting.popleft().result():
                waiting.append(thread.submit(next_one))
                yield from made

        try:
            yield results()
        finally:
            thread.shutdown(cancel_futures=True)
