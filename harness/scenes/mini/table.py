"""One parquet file of the mini data: its rows, their columns' types, its pictures, how it is written.

The same versions of pyarrow and Pillow write the same bytes every time.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image

from fitprune.files import replacing
from harness.scenes import draw, world
from harness.scenes.draw import Canvas
from harness.scenes.world import Scene

Row = dict[str, object]
BOXES = ("bbox", "segmentation")
"""Columns of pixels from the left and from the top, in turn."""


@dataclass(frozen=True)
class Table:
    """The rows of one parquet file, below the data folder, and their columns' types."""

    path: str
    features: Features
    rows: list[Row]


def png(scene: Scene, canvas: Canvas = (1, 1)) -> dict[str, object]:
    """The scene as a value of an `Image` column."""
    buffer = io.BytesIO()
    draw.image(scene, canvas).save(buffer, "PNG", optimize=True)
    return {"bytes": buffer.getvalue(), "path": f"{scene.seed}.png"}


def fine_print(table: Table, canvas: Canvas) -> Table:
    """The same questions about the same scenes, drawn on a larger canvas; a picture's file name tells its seed.

    Boxes grow with the picture: pixels from the left and from the top take turns in them.
    """

    def redrawn(name: str, value: object) -> object:
        if isinstance(value, dict) and _is_picture(value):
            return png(world.sample(int(str(value["path"]).removesuffix(".png"))), canvas)
        if isinstance(value, list) and name in BOXES:
            return [pixels * canvas[1 - place % 2] for place, pixels in enumerate(value)]
        return [redrawn(name, part) for part in value] if isinstance(value, list) else value

    rows = [{name: redrawn(name, value) for name, value in row.items()} for row in table.rows]
    return Table(table.path, table.features, rows)


def table_of(path: str, rows: list[Row], **types: object) -> Table:
    """The rows of a file, each column of the type that the first row has there, unless another is given."""
    features = Features.from_arrow_schema(pa.Table.from_pylist(rows[:1]).schema)
    pictures = {name: Image() for name, value in rows[0].items() if _is_picture(value)}
    return Table(path, Features(features | pictures | types), rows)


def _is_picture(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"bytes", "path"}


def encoder() -> str:
    """What the pictures are encoded with; another version may give other bytes for the same pixels."""
    return f"Pillow {PIL.__version__}"


def write(table: Table, out: Path) -> Path:
    """Writes one file below `out`, atomically; an image that several rows share is stored once."""
    path = out / table.path
    path.parent.mkdir(parents=True, exist_ok=True)
    arrow = pa.Table.from_pylist(table.rows, schema=table.features.arrow_schema)
    arrow = arrow.replace_schema_metadata({**arrow.schema.metadata, b"pillow": encoder().encode()})
    with replacing(path) as unfinished:
        pq.write_table(arrow, unfinished, compression="zstd", use_dictionary=True, dictionary_pagesize_limit=1 << 24)
    return path
