"""Pre-flight of a suite's data: fast, before any work, in one-line errors. Imports neither torch nor lmms-eval."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fitprune.errors import FitPruneError
from fitprune.files import replacing
from harness.models.digests import home
from harness.results.sources import folder_digest
from harness.tasks.hub import require_downloaded
from harness.tasks.labels import Labels, most_common
from harness.tasks.parquet import data_folder, naming, picture_columns, read_table, require_columns, split_files
from harness.tasks.spec import Part, SuiteSpec, configurations
from harness.tasks.specs import find_suite
from harness.tasks.stored import places, state_of
from harness.tasks.videos.questions import no_archives, require_modules, video_questions

MANY = 1 << 24  # bytes of questions from which on they are mapped
_States = tuple[tuple[Path, str], ...]


def check_data(suite: str, data: str = "mini") -> None:
    """Raise FitPruneError unless the suite's data can be read and scored; takes milliseconds on mini data.

    Local data: folder, files, columns, values that lmms-eval cannot score. Hub data: that they have been downloaded.
    """
    spec = find_suite(suite)
    require_modules(spec)
    if data == "hub":
        if spec.video is not None:
            raise no_archives(spec)
        if spec.hub:
            require_downloaded(spec.name, spec.hub, configurations(spec))
        return
    if spec.video is not None:
        video_questions(data_folder(data), spec)
    elif spec.questions is not None:
        read_questions(*suite_files(data_folder(data), spec, spec.questions), spec.labels, spec.several)


def suite_files(folder: Path, spec: SuiteSpec, questions: Part) -> tuple[list[Path], list[Path]]:
    """The files of a suite's questions, and of its pictures where they are apart."""
    return part_files(folder, spec, questions), part_files(folder, spec, spec.images) if spec.images else []


def read_questions(
    files: Sequence[Path], holding: Sequence[Path] = (), labels: Labels | None = None, several: bool = False
) -> tuple[pa.Table, list[Path]]:
    """The questions of a suite, checked, with the places of their pictures (`harness.tasks.stored`); and the files beside these
    that hold some of them. Files are read once a process for each state that they are found in.

    Args:
        holding: the files of a table of pictures, by id, where the questions name theirs by `imageId`.
        several: whether a question may have a list of pictures in a column.

    Raises FitPruneError, in one line with file, column and row, for what cannot be asked or scored.
    """
    return _read_questions(_states(files), _states(holding), labels, several)


def _states(files: Iterable[Path]) -> _States:
    return tuple((path, state_of(path)) for path in files)


@functools.lru_cache(maxsize=8)
def _read_questions(files: _States, holding: _States, labels: Labels | None, several: bool) -> tuple[pa.Table, list[Path]]:
    with naming([path for path, _ in files]):
        table, beside = _placed(files, holding, several)
        table = table if labels is None else labels(table)
    pa.default_memory_pool().release_unused()
    return table, beside


def _placed(files: _States, holding: _States, several: bool) -> tuple[pa.Table, list[Path]]:
    """The questions as they are in their files, with the places of their pictures. Many are written down once for each state of
    the files, and mapped: processes share them. So long as the copies of pictures (`harness.tasks.stored`) are those they name.
    """
    copies = sorted(_states((home() / "pictures").glob("*.parquet")))
    name = hashlib.sha256(repr((*files, holding, several, copies, folder_digest(Path(__file__).parent))).encode()).hexdigest()
    written = home() / "questions" / f"{name[:32]}.arrow"
    if not written.is_file():
        table, beside = _read_placed([path for path, _ in files], [path for path, _ in holding], several)
        if beside or table.nbytes < MANY or copies != sorted(_states((home() / "pictures").glob("*.parquet"))):
            return table, beside
        try:
            written.parent.mkdir(parents=True, exist_ok=True)
            with replacing(written) as temporary, pa.ipc.new_file(str(temporary), table.schema) as writer:
                writer.write_table(table.combine_chunks())
        except OSError:  # a home that cannot be written
            return table, beside
    return pa.ipc.open_file(pa.memory_map(str(written))).read_all(), []


def _read_placed(asked: list[Path], shown: list[Path], several: bool) -> tuple[pa.Table, list[Path]]:
    beside: list[Path] = []
    pictures = {} if shown else picture_columns(asked, several)
    table = read_table(asked, without=pictures)
    for name, place in pictures.items():
        column, read = places(asked, name, several)
        table, beside = table.add_column(place, pa.field(name, column.type), column), [*beside, *read]
    if shown:
        with naming(shown):
            rows = places_of_images(table, read_table(shown, ["id"]))
            column, beside = places(shown, "image")
        table = table.append_column(pa.field("image", column.type), column.take(rows))
    return table, list(dict.fromkeys(beside))


def places_of_images(questions: pa.Table, images: pa.Table) -> pa.Array:
    """The row of each question's image. Raises FitPruneError for an image that is not there, or that an id names twice."""
    names = images["id"].cast(pa.string()).combine_chunks()
    name, times = most_common(names)
    if times > 1:
        raise FitPruneError(f"column id: {name!r} names {times} pictures")
    wanted = questions["imageId"].cast(pa.string()).combine_chunks()
    rows = pc.index_in(wanted, value_set=names)
    if rows.null_count:
        first = wanted[pc.index(rows.is_null(), True).as_py()]
        raise FitPruneError(f"{rows.null_count} questions name an imageId without an image, e.g. {first}")
    return rows


def part_files(folder: Path, spec: SuiteSpec, part: Part) -> list[Path]:
    """The files of a part of the suite's data, each with rows and the columns that are read."""
    files = split_files(folder, spec.data or spec.task, part.config, part.split)
    require_columns(files, part.columns)
    return files
