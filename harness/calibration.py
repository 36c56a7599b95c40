"""Calibration batches: what a method that fits itself to a model is shown. None of it stands in a suite."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fitprune.errors import FitPruneError
from harness.data import data_folder, read_table, require_columns

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from harness.models.loading import LoadedModel

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
    loaded: "LoadedModel", data: str = "mini", samples: int = SAMPLES, batch_size: int = BATCH
) -> "list[Mapping[str, torch.Tensor]]":
    """Processor outputs of the first `samples` calibration prompts, left-padded, on the CPU.

    Raises:
        FitPruneError: fewer samples than asked for, or a damaged file or image.
    """
    check_samples(data)
    rows = read_table([sample_file(data)], list(COLUMNS)).slice(0, samples).to_pylist()
    if len(rows) < samples:
        raise FitPruneError(f"{sample_file(data)} holds {len(rows)} samples; {samples} were asked for")
    pairs = [(_decode(row["image"], data), row["question"]) for row in rows]
    return [prompt_batch(loaded, pairs[start : start + batch_size]) for start in range(0, len(pairs), batch_size)]


def prompt_batch(loaded: "LoadedModel", pairs: "Sequence[tuple[Image, str]]") -> "Mapping[str, torch.Tensor]":
    """(image, question) pairs through the chat template and the processor, left-padded, on the CPU."""
    processor = loaded.processor
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
        )
        for _, question in pairs
    ]
    return processor(images=[image for image, _ in pairs], text=texts, padding=True, return_tensors="pt")


def _decode(cell: Mapping[str, bytes], data: str) -> "Image":
    from PIL import Image

    try:
        return Image.open(io.BytesIO(cell["bytes"])).convert("RGB")
    except (OSError, TypeError, SyntaxError) as error:
        raise FitPruneError(f"{sample_file(data)}: an image cannot be decoded ({error})") from None
