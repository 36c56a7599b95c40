"""`calibration_batches`: what a method that fits itself to a model is shown, and where it is from. None of it is in a suite."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitprune.errors import FitPruneError
from harness.models.prompting import encode
from harness.tasks.labels import texts
from harness.tasks.parquet import data_folder, file_digest, read_table, require_columns
from harness.tasks.pictures import as_seen, as_struct, nothing_filled_up
from harness.tasks.preflight import naming

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from harness.models.loading import LoadedModel, ModelOutline

SAMPLES = 128
BATCH = 16
COLUMNS = ("image", "question")


def sample_file(data: str) -> Path:
    """The calibration samples of a data source: `calibration.parquet` in its folder, with columns image and question.

    The hub's data sets have none, so `hub` takes the embedded set.
    """
    return data_folder("mini" if data == "hub" else data) / "calibration.parquet"


def check_samples(data: str) -> None:
    """Raise a `FitPruneError`, before any work, unless the samples are there and readable."""
    path = sample_file(data)
    if not path.is_file():
        raise FitPruneError(f"no calibration samples: {path} does not exist; it needs the columns {' and '.join(COLUMNS)}")
    require_columns([path], COLUMNS)


def calibration_batches(
    loaded: "LoadedModel | ModelOutline", data: str = "mini", samples: int = SAMPLES, batch_size: int = BATCH
) -> "Batches":
    """The model's inputs for the first `samples` calibration prompts, decoded as they are read.

    Raises:
        FitPruneError: fewer samples than asked for, or a damaged file or image.
    """
    return Batches(loaded, data, calibration_samples(data, samples), batch_size)


def calibration_samples(data: str = "mini", samples: int = SAMPLES) -> list[tuple[bytes, str]]:
    """The first `samples` of a data source: encoded image and question.

    Raises:
        FitPruneError: fewer samples than asked for, or a damaged file.
    """
    check_samples(data)
    file = sample_file(data)
    table = read_table([file], list(COLUMNS)).slice(0, samples)
    if len(table) < samples:
        raise FitPruneError(f"{file} holds {len(table)} samples; {samples} were asked for")
    with naming([file]):
        questions = texts("question")(table)["question"].to_pylist()
        images = [as_struct(value, "image", row, file.parent) for row, value in enumerate(table["image"].to_pylist())]
    return [(image["bytes"], question) for image, question in zip(images, questions, strict=True)]


def origin(loaded: "LoadedModel", data: str) -> dict[str, Any]:
    """Where a model and its calibration data come from, for a recipe's provenance: `model`, `revision`, `data` (id, digest).

    Folders go by their own names: a recipe is shared, and where they stood on one machine says nothing on another.
    """
    spec = loaded.spec
    file = sample_file(data)
    return {
        "model": spec.source if spec.kind != "folder" else Path(spec.source).name,
        "revision": loaded.revision,
        "data": {"id": file.parent.name if data not in ("mini", "hub") else "mini", "digest": file_digest([file])[:16]},
    }


class Batches:
    """The model's inputs for calibration samples, made batch by batch while they are iterated over."""

    def __init__(
        self, loaded: "LoadedModel | ModelOutline", data: str, samples: list[tuple[bytes, str]], batch_size: int
    ) -> None:
        self._loaded, self._data = loaded, data
        rows = list(enumerate(samples))
        self._chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> "Iterator[Mapping[str, torch.Tensor]]":
        for chunk in self._chunks:
            images = [[_decode(image, row, self._data)] for row, (image, _) in chunk]
            yield encode(self._loaded, [question for _, (_, question) in chunk], images)


def _decode(encoded: bytes, row: int, data: str) -> "Image":
    from PIL import Image, UnidentifiedImageError

    nothing_filled_up()
    try:
        return as_seen(Image.open(io.BytesIO(encoded)))
    except (OSError, TypeError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        what = "no picture" if isinstance(error, UnidentifiedImageError) else error
        raise FitPruneError(f"{sample_file(data)}: column image, row {row}: it cannot be decoded ({what})") from None
