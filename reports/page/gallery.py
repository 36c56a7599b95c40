"""Pictures for the page: what `fitprune gallery` left in a results folder."""

from pathlib import Path
from typing import Any

from harness.gallery.file import FOLDER, check_scene
from reports.page.left import left_in

GALLERY_BYTES = 2_000_000


def read_gallery(results: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The scenes of a results folder as far as the page has room, and one line for each that is damaged or left out."""
    found, notes = left_in(results, FOLDER, check_scene)
    scenes, size = [], 0
    for scene, length in found:
        size += length
        if size <= GALLERY_BYTES:
            scenes.append(scene)
    if left_out := len(found) - len(scenes):
        notes.append(f"the gallery is full: {left_out} of its pictures are left out")
    return scenes, notes
