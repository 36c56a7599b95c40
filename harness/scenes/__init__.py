"""Procedurally drawn scenes and questions about them: what the mini suites are made of, and the embedded models learnt."""

from __future__ import annotations

import io
from random import Random


def calibration_samples(n: int, seed: int = 0) -> list[dict[str, object]]:
    """`n` samples of the calibration set, chosen by `seed`: `image` (PIL), `question` (the prompt, with the task's
    post-prompt) and `answer`.
    """
    import pyarrow.parquet as pq
    from PIL import Image

    from harness.tasks.mini_data import mini_folder

    rows = pq.read_table(mini_folder() / "calibration.parquet").to_pylist()
    if not 1 <= n <= len(rows):
        raise ValueError(f"the calibration set has {len(rows)} samples, so n must be 1 to {len(rows)}, not {n}")
    chosen = Random(seed).sample(rows, n)
    return [{**row, "image": Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")} for row in chosen]
