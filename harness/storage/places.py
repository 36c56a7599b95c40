"""`files_at`: where results lie, by its name."""

import os

from harness.storage.files import Files, Folder
from harness.storage.object_files import open_url

Place = str | os.PathLike[str] | Files


def files_at(place: Place) -> Files:
    """The files at a place: in the folder of a path, or below a URL; what is a place already stays what it is."""
    if isinstance(place, str) and "://" in place:
        return open_url(place)
    return Folder(place) if isinstance(place, str | os.PathLike) else place
