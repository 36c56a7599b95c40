"""Local data for lmms-eval's tasks: parquet files in the columns of the public data sets.

Layout of a data folder: `<task>/<config>/<split>.parquet`, or shards `<split>-00000-of-00003.parquet`; a task without a
config uses `default`. The files are read into memory, so that changed content is never answered from a cache.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from fitprune.errors import FitPruneError
from harness.models.digests import content_digest
from harness.tasks.mini_data import mini_folder

if TYPE_CHECKING:
    from datasets import Dataset


def data_folder(data: str) -> Path:
    """The folder behind `mini` or a path. Raises FitPruneError, in one line, when it does not exist."""
    if data == "mini":
        return mini_folder()
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise FitPruneError(
            f"data folder '{data}' does not exist; --data takes mini, hub or a folder of <task>/<config>/*.parquet"
        )
    return folder


def split_files(folder: Path, task: str, config: str | None, split: str) -> list[Path]:
    """The parquet files of one split, in order. Raises FitPruneError naming the file that should be there."""
    place = folder / task / (config or "default")
    single = place / f"{split}.parquet"
    files = [single] if single.is_file() else sorted(place.glob(f"{split}-*.parquet"))
    if not files:
        raise FitPruneError(f"no data for task '{task}': {single} does not exist")
    return files


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file, reading its footer only. Raises FitPruneError when it is truncated or not parquet."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise FitPruneError(f"{path}: truncated or not a parquet file ({_short(error)})") from None


def require_columns(files: Iterable[Path], columns: Iterable[str]) -> None:
    """Raise FitPruneError unless every file has rows and the columns; names the absent ones and the file."""
    for path in files:
        with open_parquet(path) as file:
            there = set(file.schema_arrow.names)
            if not file.metadata.num_rows:
                raise FitPruneError(f"{path}: holds no rows")
        absent = [name for name in columns if name not in there]
        if absent:
            raise FitPruneError(f"{path}: column {', '.join(absent)} is missing; it has {', '.join(sorted(there))}")


def read_table(files: Iterable[Path], columns: list[str] | None = None) -> pa.Table:
    """The rows of all files, in memory.

    Raises FitPruneError when a file is damaged or the files disagree about their columns.
    """
    tables = []
    for path in files:
        with open_parquet(path) as file:
            try:
                tables.append(file.read(columns=columns))
            except (pa.ArrowException, OSError) as error:
                raise FitPruneError(f"{path}: cannot be read ({_short(error)})") from None
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        raise FitPruneError(f"the parts of {path.parent} have different columns ({_short(error)})") from None


def to_dataset(table: pa.Table, fingerprint: str) -> "Dataset":
    """An in-memory dataset. Columns of struct{bytes, path} are images, also where the file does not say so."""
    from datasets import Dataset, DatasetInfo, Features, Image
    from datasets.table import InMemoryTable

    features = Features.from_arrow_schema(table.schema)
    for field in table.schema:
        if pa.types.is_struct(field.type) and {part.name for part in field.type} == {"bytes", "path"}:
            features[field.name] = Image()
    table = table.cast(features.arrow_schema).replace_schema_metadata(features.arrow_schema.metadata)
    return Dataset(InMemoryTable(table), info=DatasetInfo(features=features), fingerprint=fingerprint)


def file_digest(files: Iterable[Path]) -> str:
    """SHA-256 over the files' content, in hex."""
    return hashlib.sha256(b"".join(map(content_digest, files))).hexdigest()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
