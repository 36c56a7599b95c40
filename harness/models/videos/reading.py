"""Videos as they are read from files, with PyAV: frames at even distances."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fitprune.errors import FitPruneError

if TYPE_CHECKING:
    import numpy as np

FRAMES = 32
"""Frames of a video, as lmms-eval's own classes of these families take by default."""


@dataclass(frozen=True)
class Video:
    """Frames of a video file.

    Attributes:
        frames: uint8 (frames, height, width, 3), RGB.
        indices: which of the file's frames these are.
        total: how many the file has.
        fps: frames per second of the file.
        digest: of the file, 16 hex digits.
    """

    frames: "np.ndarray"
    indices: list[int]
    total: int
    fps: float
    digest: str


def read_video(path: Path, frames: int = FRAMES) -> Video:
    """So many frames of a file at even distances, the first and the last among them; of a shorter video some stand twice, as
    with lmms-eval.

    Raises:
        FitPruneError: no PyAV, no such file, or one that cannot be decoded as a video.
    """
    import numpy as np

    if frames < 1:
        raise FitPruneError(f"a video is shown by one frame at least, not {frames}")
    try:
        import av
    except ImportError:
        raise FitPruneError(
            "videos are read with PyAV, which is not installed; install it with: pip install 'fitprune-bench[video]'"
        ) from None
    if not path.is_file():
        raise FitPruneError(f"there is no video {path}")
    try:
        with av.open(str(path)) as file:
            stream = next(iter(file.streams.video), None)
            fps, total = (float(stream.average_rate or stream.guessed_rate or 24), stream.frames) if stream else (0.0, 0)
        indices = _evenly(total, frames)
        found, seen = _decoded(path, set(indices))
        if found.keys() != set(indices) or not total:
            # The number in the file's head is none, or too large: all frames have been counted.
            total = seen
            indices = _evenly(total, frames)
            found, _ = _decoded(path, set(indices))
    except (av.FFmpegError, ValueError) as error:
        raise FitPruneError(f"{path}: it cannot be decoded as a video ({' '.join(str(error).split())[:120]})") from None
    if not found:
        raise FitPruneError(f"{path}: it cannot be decoded as a video (no frame is in it)")
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    return Video(np.stack([found[index] for index in indices]), indices, total, fps, digest)


def _evenly(total: int, frames: int) -> list[int]:
    import numpy as np

    return np.linspace(0, total - 1, frames, dtype=int).tolist() if total else []


def _decoded(path: Path, wanted: set[int]) -> "tuple[dict[int, np.ndarray], int]":
    """The frames of these numbers, as far as there are so many; and how many frames were decoded: all where none is wanted."""
    import av

    found: dict[int, np.ndarray] = {}
    number = -1
    with av.open(str(path)) as file:
        for number, frame in enumerate(file.decode(video=0) if file.streams.video else ()):
            if number in wanted:
                found[number] = frame.to_ndarray(format="rgb24")
                if len(found) == len(wanted):
                    break
    return found, number + 1
