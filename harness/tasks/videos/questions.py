"""The questions of a suite about videos, and the video files that they name.

Layout of a data folder: questions as for pictures, `<task>/<config>/<split>.parquet`, or `<task>/json/<config>.json` as MVBench
publishes them; videos below `<task>/`, where the data set's own archives put them. Videos are read from their files when they
are asked about.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fitprune.errors import FitPruneError
from harness.models.videos.reading import require_reader
from harness.tasks.parquet import data_folder, naming, read_table, require_columns, split_files
from harness.tasks.spec import Part, SuiteSpec
from harness.tasks.specs import find_suite

TYPICAL = 8  # questions whose prompts are looked at
_CONFIG = "config"  # the column that says of a joined table's row which of its tables it is of


def video_questions(folder: Path, spec: SuiteSpec) -> tuple[pa.Table, list[Path]]:
    """The questions of a suite, checked, and the files that they are read from.

    Raises FitPruneError, in one line, for what cannot be asked or scored, and for videos that are not there.
    """
    part = spec.questions
    assert part is not None, f"{spec.name} asks about videos, and nothing says in which columns"
    tables, files = list[pa.Table](), list[Path]()
    for config in part.joined or (part.config,):
        own = _files(folder, spec, config, part)
        with naming(own):
            table = spec.labels(_read(own, part))
            if part.joined:
                table = table.append_column(_CONFIG, pa.array([config] * len(table), pa.string()))
            _require_videos(folder, spec, table)
        tables.append(table)
        files += own
    return pa.concat_tables(tables), files


def video_of(folder: Path, spec: SuiteSpec, doc: Mapping[str, Any]) -> Path:
    """The file of a question's video: the first of where it may be that is there, else the first."""
    assert spec.video is not None
    places = [_place(folder, spec) / name for name in spec.video(doc)]
    return next((place for place in places if place.is_file()), places[0])


def video_prompts(suite: str, data: str) -> list[tuple[Path, str]]:
    """The first questions of a suite, each about another video: what its prompts are like."""
    spec, folder = find_suite(suite), data_folder(data)
    found: dict[Path, str] = {}
    for doc in video_questions(folder, spec)[0].to_pylist():
        found.setdefault(video_of(folder, spec, doc), str(doc["question"]))
        if len(found) == TYPICAL:
            break
    return list(found.items())


def no_archives(spec: SuiteSpec) -> FitPruneError:
    """The refusal of data that are read from the hub."""
    return FitPruneError(
        f"suite '{spec.name}': its videos come from the hub in archives, which are not unpacked here; unpack them into a "
        "folder and give --data DIR (docs/data.md says where they go)"
    )


def require_modules(spec: SuiteSpec) -> None:
    """Raise FitPruneError, in one line, where a module that the suite's code imports, or that reads its videos, is missing."""
    for module, package in spec.needs.items():
        if importlib.util.find_spec(module) is None:
            raise FitPruneError(
                f"suite '{spec.name}' needs the Python module '{module}', which its task in lmms-eval imports, and which is "
                f"not installed; install it with: pip install {package}"
            )
    if spec.video is not None:
        require_reader()


def _place(folder: Path, spec: SuiteSpec) -> Path:
    return folder / (spec.data or spec.task)


def _files(folder: Path, spec: SuiteSpec, config: str | None, part: Part) -> list[Path]:
    written = _place(folder, spec) / "json" / f"{config}.json"
    if written.is_file():
        return [written]
    try:
        return split_files(folder, spec.data or spec.task, config, part.split)
    except FitPruneError as error:
        reason = str(error).removesuffix("; take --data hub, or --data DIR with it")
        raise FitPruneError(f"{reason}; give --data DIR with it and its videos (docs/data.md says where they go)") from None


def _read(files: list[Path], part: Part) -> pa.Table:
    """The columns that the task reads, of tables whose other columns may differ; all of a table that stands alone."""
    if files[0].suffix == ".json":
        try:
            rows = json.loads(files[0].read_text(encoding="utf-8"))
            table = pa.Table.from_pylist([{name: row[name] for name in part.columns} for row in rows])
        except KeyError as error:
            raise FitPruneError(f"a question has no {error.args[0]}") from None
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise FitPruneError(f"it is no JSON list of questions ({' '.join(str(error).split())[:120]})") from None
        if not len(table):
            raise FitPruneError("it holds no questions")
        return table
    require_columns(files, part.columns)
    return read_table(files, list(part.columns) if part.joined else None)


def _require_videos(folder: Path, spec: SuiteSpec, table: pa.Table) -> None:
    absent = [(row, path) for row, doc in enumerate(table.to_pylist()) if not (path := video_of(folder, spec, doc)).is_file()]
    if absent:
        row, path = absent[0]
        raise FitPruneError(
            f"the videos of {len(absent)} of {len(table)} questions are not there, e.g. of row {row}: {path}; unpack the data "
            f"set's archives into {_place(folder, spec)}"
        )
