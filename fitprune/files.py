"""Writing a file whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file in the folder of `path` to write to: it becomes `path` at the end of the block, and goes after an error.

    So `path` is at every moment either what it was or the whole of what was written. A rename is only atomic within a file
    system, hence the folder.
    """
    descriptor, name = tempfile.mkstemp(prefix=".writing-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        os.fchmod(descriptor, 0o644)
        os.close(descriptor)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
