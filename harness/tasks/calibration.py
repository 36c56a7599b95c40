"""`calibration_batches`: what a method that fits itself to a model is shown, and where it is from. None of it is in a suite."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitprune.errors import FitPruneError
from harness.models.prompting import encode
from harness.models.videos.reading import read_video
from harness.tasks.labels import texts
from harness.tasks.parquet import data_folder, file_digest, naming, read_table, require_columns
from harness.tasks.pictures import as_seen, as_struct, nothing_filled_up

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from harness.models.loading import LoadedModel, ModelOutline

SAMPLES, VIDEO_SAMPLES = 128, 32
BATCH, VIDEO_BATCH = 16, 2
COLUMNS, VIDEO_COLUMNS = ("image", "question"), ("video", "question")
Sample = tuple[bytes | Path, str]
"""An encoded picture, or a video's file, and a question about it."""


def sample_file(data: str, videos: bool = False) -> Path:
    """The calibration samples of a data source: `calibration.parquet` in its folder, with columns image and question; of videos
    `calibration_video.parquet`, with columns video, the path of a file relative to the folder, and question.

    The hub's data sets have none, so `hub` takes the embedded set.
    """
    return data_folder("mini" if data == "hub" else data) / f"calibration{'_video' * videos}.parquet"


def sample_files(data: str, videos: bool = False) -> list[Path]:
    """The file of the samples, and the videos that it names."""
    file = sample_file(data, videos)
    named = read_table([file], ["video"])["video"].to_pylist()[:VIDEO_SAMPLES] if videos else []
    return [file, *dict.fromkeys(file.parent / str(name) for name in named)]


def check_samples(data: str, videos: bool = False) -> None:
    """Raise a `FitPruneError`, before any work, unless the samples are there and readable."""
    path, columns = sample_file(data, videos), VIDEO_COLUMNS if videos else COLUMNS
    if not path.is_file():
        raise FitPruneError(f"no calibration samples: {path} does not exist; it needs the columns {' and '.join(columns)}")
    require_columns([path], columns)
    for place, file in enumerate(sample_files(data, videos)):
        if not file.is_file():
            raise FitPruneError(f"{path}: column video, row {place - 1} or below: there is no video {file}")


def calibration_batches(
    loaded: "LoadedModel | ModelOutline",
    data: str = "mini",
    samples: int | None = None,
    batch_size: int | None = None,
    frames: int = 0,
) -> "Batches":
    """The model's inputs for the first calibration prompts, 128 by default, decoded as they are read; with `frames`, for those
    about videos, 32 by default, each shown by so many.

    Raises:
        FitPruneError: fewer samples than asked for, or a damaged file, image or video.
    """
    if frames:
        return Batches(loaded, data, video_samples(data, samples or VIDEO_SAMPLES), batch_size or VIDEO_BATCH, frames)
    return Batches(loaded, data, calibration_samples(data, samples or SAMPLES), batch_size or BATCH)


def video_samples(data: str = "mini", samples: int = VIDEO_SAMPLES) -> list[Sample]:
    """The first `samples` of a data source that are about videos: the file, and the question."""
    file, table = _samples(data, samples, videos=True)
    with naming([file]):
        questions = texts("video", "question")(table)
    return [(file.parent / row["video"], row["question"]) for row in questions.to_pylist()]


def calibration_samples(data: str = "mini", samples: int = SAMPLES) -> list[Sample]:
    """The first `samples` of a data source: encoded image and question.

    Raises:
        FitPruneError: fewer samples than asked for, or a damaged file.
    """
    file, table = _samples(data, samples)
    with naming([file]):
        questions = texts("question")(table)["question"].to_pylist()
        images = [as_struct(value, "image", row, file.parent) for row, value in enumerate(table["image"].to_pylist())]
    return [(image["bytes"], question) for image, question in zip(images, questions, strict=True)]


def _samples(data: str, samples: int, videos: bool = False) -> tuple[Path, Any]:
    """The file of the samples, and the first rows of it."""
    check_samples(data, videos)
    file = sample_file(data, videos)
    table = read_table([file], list(VIDEO_COLUMNS if videos else COLUMNS)).slice(0, samples)
    if len(table) < samples:
        raise FitPruneError(f"{file} holds {len(table)} samples; {samples} were asked for")
    return file, table


def origin(loaded: "LoadedModel", data: str, frames: int = 0) -> dict[str, Any]:
    """Where a model and its calibration data come from, for a recipe's provenance: `model`, `revision`, `data` (id, digest,
    for videos the number of frames).

    Folders go by their own names: a recipe is shared, and where they stood on one machine says nothing on another.
    """
    spec, videos = loaded.spec, frames > 0
    file = sample_file(data, videos)
    source = {"id": file.parent.name if data not in ("mini", "hub") else "mini"}
    source["digest"] = file_digest(sample_files(data, videos))[:16]
    return {
        "model": spec.source if spec.kind != "folder" else Path(spec.source).name,
        "revision": loaded.revision,
        "data": source | ({"frames": frames} if videos else {}),
    }


class Batches:
    """The model's inputs for calibration samples, made batch by batch while they are iterated over."""

    def __init__(
        self, loaded: "LoadedModel | ModelOutline", data: str, samples: Sequence[Sample], batch_size: int, frames: int = 0
    ) -> None:
        self._loaded, self._data, self._frames = loaded, data, frames
        rows = list(enumerate(samples))
        self._chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> "Iterator[Mapping[str, torch.Tensor]]":
        for chunk in self._chunks:
            questions = [question for _, (_, question) in chunk]
            images = [[_decode(shown, row, self._data)] if isinstance(shown, bytes) else [] for row, (shown, _) in chunk]
            videos = [[read_video(shown, self._frames)] for _, (shown, _) in chunk if isinstance(shown, Path)]
            yield encode(self._loaded, questions, images, videos)


def _decode(encoded: bytes, row: int, data: str) -> "Image":
    from PIL import Image, UnidentifiedImageError

    nothing_filled_up()
    try:
        return as_seen(Image.open(io.BytesIO(encoded)))
    except (OSError, TypeError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        what = "no picture" if isinstance(error, UnidentifiedImageError) else error
        raise FitPruneError(f"{sample_file(data)}: column image, row {row}: it cannot be decoded ({what})") from None
