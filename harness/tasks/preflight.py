"""Pre-flight of a suite's data: fast, before any work, in one-line errors. Imports neither torch nor lmms-eval."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from fitprune.errors import FitPruneError
from harness.tasks.hub import commit_of
from harness.tasks.parquet import data_folder, read_table, require_columns, split_files
from harness.tasks.spec import Part, SuiteSpec
from harness.tasks.specs import find_suite


def check_data(suite: str, data: str = "mini") -> None:
    """Raise FitPruneError unless the suite's data can be read and scored; takes milliseconds on mini data.

    Local data: folder, files, columns, values that lmms-eval cannot score. Hub data: that they are cached or in reach.
    """
    spec = find_suite(suite)
    if data == "hub":
        try:
            commit_of(spec.hub)
        except FitPruneError as error:
            raise FitPruneError(f"suite '{spec.name}': {error}") from None
        return
    if spec.questions is None:
        return
    folder = data_folder(data)
    files = part_files(folder, spec, spec.questions)
    with naming(files):
        table = spec.labels(read_table(files, [name for name in spec.questions.columns if name != "image"]))
    if spec.images:
        image_files = part_files(folder, spec, spec.images)
        with naming(image_files):
            places_of_images(table, read_table(image_files, ["id"]))


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


def places_of_images(questions: pa.Table, images: pa.Table) -> list[int]:
    """The row of each question's image. Raises FitPruneError for an image that is not there, or that an id names twice."""
    names = images["id"].cast(pa.string()).to_pylist()
    place = {name: row for row, name in enumerate(names)}
    if len(place) < len(names):
        name, times = Counter(names).most_common(1)[0]
        raise FitPruneError(f"column id: {name!r} names {times} pictures")
    wanted = questions["imageId"].to_pylist()
    absent = [name for name in wanted if name not in place]
    if absent:
        raise FitPruneError(f"{len(absent)} questions name an imageId without an image, e.g. {absent[0]}")
    return [place[name] for name in wanted]


def part_files(folder: Path, spec: SuiteSpec, part: Part) -> list[Path]:
    """The files of a part of the suite's data, each with rows and the columns that are read."""
    files = split_files(folder, spec.task, part.config, part.split)
    require_columns(files, part.columns)
    return files
