"""`keep_freed_memory`: memory that one batch frees is kept for the next one. `uncollected`: no search for cycles."""

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator

# glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
LARGEST = 1 << 25  # bytes; the most that glibc takes from its heap on 64-bit machines
KEPT = 1 << 29
MANY = 1_000_000  # objects


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, up to half a gigabyte, in pieces of up to 32 MiB. Elsewhere nothing happens.

    By default it hands activations back to the system after nearly every layer, and the system clears each page anew at its
    first touch: a tenth of the processor time of a dense prefill on llava-tiny at batch 16.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError, OSError):  # another C library
            libc = ctypes.CDLL(None)
            libc.mallopt(_MMAP_THRESHOLD, LARGEST)
            libc.mallopt(_TRIM_THRESHOLD, KEPT)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Inside, the garbage collector does not run. For making very many objects that stay: it would walk all of them, again and
    again, for a third of the time that they take. Where they are `MANY` it does not look at them later, either: they go when
    nothing refers to them any more.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
        if gc.get_count()[0] > MANY:
            gc.freeze()
    finally:
        if collecting:
            gc.enable()
