"""Pictures, in the forms that people store them in: as columns of encoded files, and as what a person sees.

`as_struct` makes {bytes, path} of whatever a row holds; `as_seen` makes 8-bit RGB of a decoded picture.
"""

import base64
import binascii
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from harness.tasks.labels import refused

if TYPE_CHECKING:
    from PIL.Image import Image


def is_picture(kind: pa.DataType) -> bool:
    """Whether a column of this type holds encoded pictures, whatever it is called."""
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def are_pictures(kind: pa.DataType) -> bool:
    """Whether each row of a column of this type holds a list of encoded pictures."""
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_picture(kind.value_type)


def nothing_filled_up() -> None:
    """Have Pillow refuse pictures that are cut off. lmms-eval has it fill up, with grey, what is missing."""
    from PIL import ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = False


def seen(value: Any) -> Any:
    """A field of a question with its decoded pictures `as_seen`."""
    from PIL.Image import Image

    if isinstance(value, Image):
        return as_seen(value)
    return [seen(item) for item in value] if isinstance(value, list) else value


def as_seen(picture: "Image") -> "Image":
    """A decoded picture in 8-bit RGB, turned as its EXIF tag says, as a person sees it.

    Pillow's own conversion cuts 16-bit and floating-point values off at 255; here their range is scaled. Floating-point values
    are taken for shares of 1 where none is above it, else for values up to 255.

    Raises ValueError for a range that says neither, OSError for a picture that is cut off.
    """
    from PIL import Image, ImageOps

    picture.load()
    picture = ImageOps.exif_transpose(picture)  # as `datasets` does, which leaves no tag to follow twice
    if not picture.mode.startswith(("I", "F")):
        return picture.convert("RGB")
    import numpy as np

    values = np.asarray(picture).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if picture.mode == "F":
        if not (low >= 0 and high <= 255):
            raise ValueError(f"its values run from {low:g} to {high:g}; a floating-point picture has 0 to 1, or 0 to 255")
        scale = 255.0 if high <= 1 else 1.0
    else:
        if not (low >= 0 and high <= 65535):
            raise ValueError(f"its values run from {low:g} to {high:g}; a 16-bit picture has 0 to 65535")
        scale = 1 / 257 if picture.mode != "I" or high > 255 else 1.0
    return Image.fromarray(np.rint(values * scale).astype(np.uint8)).convert("RGB")


def as_struct(value: Any, name: str, row: int, folder: Path, beside: list[Path] | None = None) -> dict[str, Any]:
    """One row's picture, encoded, as {bytes, path}, from whatever form it is stored in: a struct of bytes or of a path, bytes,
    base64 text, a path (relative to `folder`), or a list of one of these.

    Args:
        beside: what a file that the picture is read from is added to.

    Raises FitPruneError, in one line with column and row, for anything else.
    """
    if isinstance(value, list):
        if len(value) != 1:
            raise refused(name, row, f"holds {len(value)} pictures; the suite's questions are about one")
        return as_struct(value[0], name, row, folder, beside)
    if value is None:
        raise refused(name, row, "the picture is null")
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return {"bytes": value["bytes"], "path": value.get("path")}
        if value.get("path") is None:
            raise refused(name, row, "the picture has neither bytes nor a path")
        value = value["path"]
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if not isinstance(value, str):
        raise refused(name, row, f"a picture is stored as bytes, base64 or a path, not as {type(value).__name__}")
    path = folder / value
    if len(value) < 1024 and path.is_file():
        if beside is not None:
            beside.append(path)
        return {"bytes": path.read_bytes(), "path": value}
    from PIL import Image

    try:
        decoded = base64.b64decode(value.partition(",")[2] if value.startswith("data:") else value, validate=True)
        Image.open(io.BytesIO(decoded)).close()
        return {"bytes": decoded, "path": None}
    except (binascii.Error, ValueError, OSError):
        raise refused(name, row, f"there is no picture {value[:80]!r} in {folder}") from None
