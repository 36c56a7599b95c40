"""Text files that are written whole or not at all."""

from collections.abc import Iterable
from pathlib import Path

from fitprune.files import replacing


def write_atomically(path: Path, parts: Iterable[str]) -> None:
    """Write a text file so that `path` is at every moment either what it was or the whole of `parts`."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(parts)
