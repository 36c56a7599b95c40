"""Local data for lmms-eval's tasks: parquet files in the columns of the public data sets.

Layout of a data folder: `<task>/<config>/<split>.parquet`, or shards `<split>-00000-of-00003.parquet`; a task without a
config uses `default`. Questions are read into memory, without their pictures: those stay in the files (`harness.tasks.stored`).
"""

import contextlib
import hashlib
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from fitprune.errors import FitPruneError
from harness.models.digests import content_digest
from harness.tasks.mini_data import mini_folder
from harness.tasks.pictures import are_pictures, is_picture

if TYPE_CHECKING:
    from datasets import Dataset


# The parts of a split, as `datasets` and the hub name them.
_PART = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(-(?P<digest>[0-9a-f]+))?")


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
    """The parquet files of one split, in order; those of other splits beside them are left alone.

    Raises FitPruneError naming the file that should be there, a part that is missing, and parts of several generations.
    """
    place = folder / task / (config or "default")
    single = place / f"{split}.parquet"
    parts = {path: found for path in sorted(place.glob("*.parquet")) if (found := _PART.fullmatch(path.stem))}
    parts = {path: found for path, found in parts.items() if found["split"] == split}
    if single.is_file():
        if parts:
            raise FitPruneError(f"{single} and {next(iter(parts)).name} are both there; leave one generation of the data")
        return [single]
    if not parts:
        raise FitPruneError(f"no data for task '{task}': {single} does not exist; take --data hub, or --data DIR with it")
    generations = {(found["total"], found["digest"] or "") for found in parts.values()}
    if len({total for total, _ in generations}) > 1 or len(parts) > len({found["number"] for found in parts.values()}):
        names = ", ".join(path.name for path in list(parts)[:4])
        raise FitPruneError(f"{place}: the parts of {split} are of several generations ({names}); leave one of them")
    total = int(next(iter(generations))[0])
    missing = sorted(set(range(total)) - {int(found["number"]) for found in parts.values()})
    if missing:
        name = f"{split}-{missing[0]:05d}-of-{total:05d}"
        raise FitPruneError(f"{place}: {len(missing)} of the {total} parts of {split} are missing, e.g. {name}.parquet")
    return list(parts)


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


def picture_columns(files: Sequence[Path], several: bool = False) -> dict[str, int]:
    """The columns that hold pictures, with their places among the columns: whatever is called `image` or is of their type; with
    `several` lists of them too. A text called `image` is left to the code that asks for lists: it may decode the text itself.

    Raises FitPruneError when the files disagree about them.
    """
    found: list[dict[str, int]] = []
    for path in files:
        with open_parquet(path) as file:
            found.append(
                {
                    field.name: place
                    for place, field in enumerate(file.schema_arrow)
                    if (field.name == "image" and not (several and pa.types.is_string(plain_type(field.type))))
                    or is_picture(field.type)
                    or (several and are_pictures(field.type))
                }
            )
        if found[-1].keys() != found[0].keys():
            raise _differing(path, f"{', '.join(sorted(found[-1].keys() ^ found[0].keys()))} is not in all")
    return found[0]


def read_table(files: Iterable[Path], columns: list[str] | None = None, without: Container[str] = ()) -> pa.Table:
    """The rows of all files, in memory: these columns, or all but those left out. Columns that another tool wrote as large,
    dictionary or view types are what they hold.

    Raises FitPruneError when a file is damaged or the files disagree about their columns.
    """
    tables = []
    for path in files:
        with open_parquet(path) as file:
            asked = columns or [name for name in file.schema_arrow.names if name not in without]
            try:
                tables.append(_plain(file.read(columns=asked)))
            except (pa.ArrowException, OSError) as error:
                raise FitPruneError(f"{path}: cannot be read ({_short(error)})") from None
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        raise _differing(path, _short(error)) from None


def _differing(path: Path, what: str) -> FitPruneError:
    return FitPruneError(f"the parts of {path.parent} have different columns ({what})")


def _plain(table: pa.Table) -> pa.Table:
    """The table with plain types for large ones, views and dictionaries."""
    schema = pa.schema([field.with_type(plain_type(field.type)) for field in table.schema])
    return table if schema.equals(table.schema) else table.cast(schema)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """What a large, dictionary or view type holds; other types are themselves."""
    types = pa.types
    if types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
        return pa.binary()
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    return kind


@contextlib.contextmanager
def naming(files: Sequence[Path]) -> Iterator[None]:
    """Inside, what is wrong with a value is said with the file, or the first of the files, that it is in."""
    try:
        yield
    except FitPruneError as error:
        if str(error).startswith(str(files[0].parent)):
            raise
        more = f" (the first of {len(files)} parts, whose rows are counted together)" if len(files) > 1 else ""
        raise FitPruneError(f"{files[0]}{more}: {error}") from None


def to_dataset(table: pa.Table, fingerprint: str) -> "Dataset":
    """An in-memory dataset. Columns of struct{bytes, path} are images, and of lists of these images, also where the
    file does not say so."""
    from datasets import Dataset, DatasetInfo, Features, Image, List
    from datasets.table import InMemoryTable

    features = Features.from_arrow_schema(table.schema)
    for field in table.schema:
        if is_picture(field.type):
            features[field.name] = Image()
        elif are_pictures(field.type):
            features[field.name] = List(Image())
    table = table.cast(features.arrow_schema).replace_schema_metadata(features.arrow_schema.metadata)
    return Dataset(InMemoryTable(table), info=DatasetInfo(features=features), fingerprint=fingerprint)


def file_digest(files: Iterable[Path]) -> str:
    """SHA-256 over the files' content, in hex."""
    return hashlib.sha256(b"".join(map(content_digest, files))).hexdigest()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
