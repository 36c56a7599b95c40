"""What commands left in a results folder for the page: the pictures of `fitprune gallery`, the searches of `fitprune tune`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fitprune.errors import one_line
from harness.gallery import file as gallery
from harness.results.strict_json import loads
from harness.tuning import file as tuning

GALLERY_BYTES = 2_000_000
Record = dict[str, Any]


def read_gallery(results: Path) -> tuple[list[Record], list[str]]:
    """The scenes of a results folder as far as the page has room, and one line for each that is damaged or left out."""
    found, notes = _left_in(results, gallery.FOLDER, gallery.check_scene)
    scenes, size = [], 0
    for scene, length in found:
        size += length
        if size <= GALLERY_BYTES:
            scenes.append(scene)
    if left_out := len(found) - len(scenes):
        notes.append(f"the gallery is full: {left_out} of its pictures are left out")
    return scenes, notes


def read_tuned(results: Path) -> tuple[list[Record], list[str]]:
    """The searches of a results folder, and one line for each that is damaged."""
    found, notes = _left_in(results, tuning.FOLDER, tuning.check_tuned)
    return [record for record, _ in found], notes


def _left_in(results: Path, folder: str, check: Callable[[Any], Record]) -> tuple[list[tuple[Record, int]], list[str]]:
    """The records in a folder of the results, by the names of their files and with their sizes in characters, and one line for
    each that is damaged.
    """
    found, notes = [], []
    for path in sorted((results / folder).glob("*.json")):
        try:
            text = path.read_text(encoding="utf-8")
            found.append((check(loads(text)), len(text)))
        except (OSError, ValueError) as error:
            notes.append(f"{folder}/{path.name} is damaged and left out: {one_line(error)}")
    return found, notes
