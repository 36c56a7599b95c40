"""Small models and mini suites that come with the package: procedurally drawn scenes, questions about them, and LLaVAs
trained on these.
"""

from __future__ import annotations

import io
from pathlib import Path
from random import Random

MODELS: dict[str, Path] = {name: Path(__file__).parent / name for name in ("llava-tiny", "llava-next-tiny", "llava-hr-tiny")}
"""Folders of the embedded models, for `from_pretrained`."""

DATA: Path = Path(__file__).parents[2] / "suites" / "data"
"""The mini suites, `<task>/<config or default>/<split>.parquet`, and `calibration.parquet`."""


def calibration_samples(n: int, seed: int = 0) -> list[dict[str, object]]:
    """`n` samples of the calibration set, chosen by `seed`: `image` (PIL), `question` (the prompt, with the task's
    post-prompt) and `answer`.
    """
    import pyarrow.parquet as pq
    from PIL import Image

    rows = pq.read_table(DATA / "calibration.parquet").to_pylist()
    if not 1 <= n <= len(rows):
        raise ValueError(f"the calibration set has {len(rows)} samples, so n must be 1 to {len(rows)}, not {n}")
    chosen = Random(seed).sample(rows, n)
    return [{**row, "image": Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")} for row in chosen]
