"""Pictures for the page: what `fitprune gallery` left in a results folder."""

from pathlib import Path
from typing import Any

from fitprune.errors import one_line
from harness.gallery.file import FOLDER, check_scene
from harness.results.strict_json import loads

GALLERY_BYTES = 2_000_000


def read_gallery(results: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The scenes of a results folder as far as the page has room, and one line for each that is damaged or left out."""
    scenes, notes, size, left_out = [], [], 0, 0
    for path in sorted((results / FOLDER).glob("*.json")):
        try:
            text = path.read_text(encoding="utf-8")
            scene = check_scene(loads(text))
        except (OSError, ValueError) as error:
            notes.append(f"{FOLDER}/{path.name} is damaged and left out: {one_line(error)}")
            continue
        size += len(text)
        if size > GALLERY_BYTES:
            left_out += 1
        else:
            scenes.append(scene)
    if left_out:
        notes.append(f"the gallery is full: {left_out} of its pictures are left out")
    return scenes, notes
