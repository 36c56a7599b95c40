"""`files_at`: where results lie, by its name."""

import os
import re

from fitprune.errors import FitPruneError
from harness.storage.files import Files, Folder
from harness.storage.object_files import open_url

Place = str | os.PathLike[str] | Files


def files_at(place: Place) -> Files:
    """The files at a place: in the folder of a path, or below a URL; what is a place already stays what it is.

    Raises FitPruneError for a URL that was taken for a path, which would be a folder called "s3:".
    """
    if isinstance(place, str) and "://" in place:
        return open_url(place)
    if isinstance(place, str | os.PathLike) and re.match(r"\w{2,}:/", os.fspath(place)):
        raise FitPruneError(
            f"results at {place}: an address has two slashes, and pytest suites/ and fitprune paper alone take one; "
            "name a folder of this machine"
        )
    return Folder(place) if isinstance(place, str | os.PathLike) else place
