"""Pictures that stay in their parquet files until their question is asked.

In a dataset each is its place, written as a URL that `datasets` opens like any other: state of the file, column, row, file.
What is read of the file then is the beginning of one row group.
"""

import functools
import io
import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fitprune.errors import FitPruneError
from fitprune.files import replacing
from harness.models.digests import content_digest, home
from harness.storage.locks import alone
from harness.tasks.parquet import open_parquet, plain_type
from harness.tasks.pictures import are_pictures, as_struct
from harness.telling import tell

SCHEME = "fitprune-picture"
# A picture is found by reading its row group up to it. Row groups above either are written anew, once, as short ones.
LONG_BYTES, LONG_ROWS = 1 << 27, 8192
BATCH_BYTES, BATCH_ROWS = 1 << 22, 256  # what is read at a time
_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class ChangedData(FitPruneError):
    """A file is no longer what its digest was made of."""


def places(files: Sequence[Path], name: str, several: bool = False) -> tuple[pa.Array, list[Path]]:
    """The places of a column's pictures, as structs {bytes: null, path: URL}, and the files beside the parquet files that hold
    some of them. Where the files' statistics show that every row has bytes, no picture is read.

    Args:
        several: whether a row may hold a list of pictures; the column is one of lists of structs then.

    Raises FitPruneError, in one line with column and row, for what is no picture.
    """
    made: list[pa.Array] = []
    beside: list[Path] = []
    first = 0
    for path in files:
        with open_parquet(path) as file:
            lists = several and are_pictures(file.schema_arrow.field(name).type)
            chunks = _chunks(file.metadata, name)
            inside = not lists and _all_inside(file, name, chunks)
            held: Iterator[Any] = itertools.repeat("", file.metadata.num_rows)
            if not inside:
                held = (value for column in _batches(file, name, range(file.num_row_groups)) for value in column.to_pylist())
            long = inside and any(
                size > LONG_BYTES or (count > LONG_ROWS and size > 8 * BATCH_BYTES) for count, size, _ in chunks
            )
            place = (_with_short_groups(path, name) if long else path).absolute()
            head, tail = f"{SCHEME}://{state_of(place)}/{quote(name, safe='')}/", f"/{quote(str(place), safe='')}"
            urls: list[Any] = []
            for row, value in enumerate(held):
                if value is None and name != "image" and not lists:
                    urls.append(None)  # of several columns, one that the question does not use
                    continue
                for one in [] if inside else (value or ()) if lists else [value]:
                    as_struct(one, name, first + row, path.parent, beside)
                count = len(value or ()) if lists else 0
                urls.append([f"{head}{row}.{n}{tail}" for n in range(count)] if lists else f"{head}{row}{tail}")
            made.append(pa.array(urls, pa.list_(pa.string()) if lists else pa.string()))
            first += len(urls)
    joined = pa.concat_arrays(made)
    if pa.types.is_list(joined.type):
        return pa.ListArray.from_arrays(joined.offsets, _structs(joined.values)), list(dict.fromkeys(beside))
    return _structs(joined), list(dict.fromkeys(beside))


def _structs(paths: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), paths], fields=list(_STRUCT), mask=paths.is_null())


def encoded(picture: Mapping[str, Any]) -> bytes:
    """The encoded picture of a struct {bytes, path}, read from its place where that is what the struct holds."""
    if picture["bytes"]:
        return bytes(picture["bytes"])
    path = str(picture["path"])
    return _read(path.partition("://")[2]) if path.startswith(f"{SCHEME}://") else path.encode()


def _read(place: str) -> bytes:
    state, quoted, numbers, file = place.split("/")
    path, name = Path(unquote(file)), unquote(quoted)
    row, *number = map(int, numbers.split("."))
    footer, starts = _footer(path, state)
    group = int(np.searchsorted(starts, row, "right")) - 1
    batch, within = divmod(row - int(starts[group]), _batch_rows(footer, name, group))
    value = _batch(path, state, name, group, batch)[within].as_py()
    return bytes(as_struct(value[number[0]] if number else value, name, row, path.parent)["bytes"])


@functools.lru_cache(maxsize=8)
def _batch(path: Path, state: str, name: str, group: int, number: int) -> pa.Array:
    if state_of(path) != state:
        raise ChangedData(f"{path} changed while the run was going on; run it again")
    with pq.ParquetFile(path, metadata=_footer(path, state)[0], buffer_size=BATCH_BYTES) as file:
        return next(itertools.islice(_batches(file, name, [group]), number, None))


@functools.lru_cache(maxsize=256)
def _footer(path: Path, state: str) -> tuple[pq.FileMetaData, np.ndarray]:
    """A file's footer, and the first row of each of its row groups."""
    with open_parquet(path) as file:
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        return file.metadata, np.cumsum([0, *counts])[:-1]


def _batches(file: pq.ParquetFile, name: str, groups: Sequence[int]) -> Iterator[pa.Array]:
    """A column of these row groups, in their batches."""
    for group in groups:
        rows = _batch_rows(file.metadata, name, group)
        for batch in file.iter_batches(rows, row_groups=[group], columns=[name], use_threads=False):
            yield batch.column(0)


def _batch_rows(footer: pq.FileMetaData, name: str, group: int) -> int:
    """How many rows of a row group are read at a time."""
    count, size, _ = _chunks(footer, name)[group]
    return max(1, min(BATCH_ROWS, BATCH_BYTES * count // max(size, 1)))


def _chunks(footer: pq.FileMetaData, name: str) -> list[tuple[int, int, int | None]]:
    """Of each row group: rows, bytes of the column, and how many of its values are null, None where nobody knows."""
    made = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        own = [column for column in columns if column.path_in_schema in (name, f"{name}.bytes")]
        statistics = own[0].statistics if own else None
        nulls = statistics.null_count if statistics is not None and statistics.has_null_count else None
        made.append((group.num_rows, own[0].total_uncompressed_size if own else 0, nulls))
    return made


def _all_inside(file: pq.ParquetFile, name: str, chunks: list[tuple[int, int, int | None]]) -> bool:
    """Whether each row of the column has bytes, as the footer alone tells."""
    kind = file.schema_arrow.field(name).type
    if pa.types.is_struct(kind):
        kind = next((field.type for field in kind if field.name == "bytes"), pa.null())
    return plain_type(kind) == pa.binary() and all(nulls == 0 for _, _, nulls in chunks)


def state_of(path: Path) -> str:
    """What tells whether a file is the one that was read before."""
    found = path.stat()
    return f"{found.st_size}-{found.st_mtime_ns}"


def _with_short_groups(path: Path, name: str) -> Path:
    """The column in a file of its own, in row groups of one batch each; made once for each content, beside the digests."""
    folder = home() / "pictures"
    target = folder / f"{content_digest(path).hex()[:32]}-{quote(name, safe='')}.parquet"
    advice = f"write {path} with shorter row groups (row_group_size=100), or point HF_HOME to where there is room"
    try:
        with alone(target.with_suffix(".lock"), f"the pictures of {path.name}"):
            if not target.is_file():
                size = path.stat().st_size
                if shutil.disk_usage(folder).free < size:
                    raise FitPruneError(f"{folder} has no room for the {size / 1e9:.1f} GB of pictures of {path}; {advice}")
                tell(f"{path}: its row groups are long; its pictures are written anew, once, to {target} ({size / 1e9:.1f} GB)")
                with open_parquet(path) as file, replacing(target) as temporary:
                    schema = pa.schema([file.schema_arrow.field(name)])
                    with pq.ParquetWriter(temporary, schema, compression="none", use_dictionary=False) as writer:
                        for column in _batches(file, name, range(file.num_row_groups)):
                            writer.write_table(pa.Table.from_arrays([column], schema=schema))
    except OSError as error:
        raise FitPruneError(f"{folder} cannot be written ({error.strerror}); {advice}") from None
    return target


class _Places(fsspec.AbstractFileSystem):
    """Opens places; all that `datasets` asks of it."""

    protocol = SCHEME
    cachable = True

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        return io.BytesIO(_read(path))


fsspec.register_implementation(SCHEME, _Places, clobber=True)
