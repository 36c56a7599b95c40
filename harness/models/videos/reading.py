"""Videos as they are read from files, with PyAV: frames at even distances."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fitprune.errors import FitPruneError, SeesNoVideos
from harness.models.digests import content_digest
from harness.models.videos.seeking import LONG, sought

FRAMES = 32
"""Frames of a video, as lmms-eval's own classes of these families take by default."""


class BrokenVideo(FitPruneError):
    """A file that is there and cannot be decoded as a video."""


@dataclass(frozen=True)
class Video:
    """Frames of a video file.

    Attributes:
        frames: uint8 (frames, height, width, 3), RGB, turned as players turn them.
        indices: which of the file's frames these are.
        total: how many the file has.
        fps: frames per second of the file.
        digest: of the file, 16 hex digits.
    """

    frames: np.ndarray
    indices: list[int]
    total: int
    fps: float
    digest: str


def read_video(path: Path, frames: int = FRAMES) -> Video:
    """So many frames of a file at even distances, the first and the last among them; of a shorter video some stand twice, as
    with lmms-eval.

    Raises:
        FitPruneError: no PyAV, no such file; BrokenVideo, one of them: a file that cannot be decoded as a video.
    """
    if frames < 1:
        raise FitPruneError(f"a video is shown by one frame at least, not {frames}")
    require_reader()
    import av

    if not path.is_file():
        raise FitPruneError(f"there is no video {path}")
    try:
        with av.open(str(path)) as file:
            stream = next(iter(file.streams.video), None)
            fps, total = (float(stream.average_rate or stream.guessed_rate or 24), stream.frames) if stream else (0.0, 0)
        indices = _evenly(total, frames)
        quick = sought(path, indices, total, _upright) if total >= max(LONG, 2 * frames) else None
        found, seen = _decoded(path, set(indices)) if quick is None else (quick, total)
        if found.keys() != set(indices) or not total:
            # The number in the file's head is none, or too large: all frames have been counted.
            total = seen
            indices = _evenly(total, frames)
            found, _ = _decoded(path, set(indices))
    except (av.FFmpegError, ValueError) as error:
        raise BrokenVideo(f"{path}: it cannot be decoded as a video ({' '.join(str(error).split())[:120]})") from None
    if not found:
        raise BrokenVideo(f"{path}: it cannot be decoded as a video (no frame is in it)")
    return Video(np.stack([found[index] for index in indices]), indices, total, fps, content_digest(path).hex()[:16])


def blank(frames: int) -> Video:
    """So many black frames."""
    return Video(np.zeros((frames, 224, 224, 3), np.uint8), list(range(frames)), frames, 24.0, "")


def require_videos(model: str, config: Any, who: str) -> None:
    """Raise SeesNoVideos, in one line, where a model of this configuration is shown images alone, and `who` shows videos."""
    from fitprune.models.parts import SEE_VIDEOS

    if config.model_type not in SEE_VIDEOS:
        raise SeesNoVideos(
            f"{who} shows videos, and {model} is shown images alone; models with videos: {', '.join(sorted(SEE_VIDEOS))}"
        )


def require_reader() -> None:
    """Raise FitPruneError, in one line, where PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise FitPruneError(
            "videos are read with PyAV, which is not installed; install it with: pip install 'fitprune-bench[video]'"
        ) from None


def _evenly(total: int, frames: int) -> list[int]:
    return np.linspace(0, total - 1, frames, dtype=int).tolist() if total else []


def _decoded(path: Path, wanted: set[int]) -> tuple[dict[int, np.ndarray], int]:
    """The frames of these numbers, as far as there are so many; and how many frames were decoded: all where none is wanted."""
    import av

    found: dict[int, np.ndarray] = {}
    number = -1
    with av.open(str(path)) as file:
        for stream in file.streams.video:
            stream.thread_type = "AUTO"  # over the cores, where the codec can: the frames are the same
        for number, frame in enumerate(file.decode(video=0) if file.streams.video else ()):
            if number in wanted:
                found[number] = _upright(frame)
                if len(found) == len(wanted):
                    break
    return found, number + 1


def _upright(frame: Any) -> np.ndarray:
    """A decoded frame in RGB, turned and mirrored as the display matrix says that phones write beside it.

    Raises ValueError for a matrix that does anything but quarter turns and mirroring.
    """
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return pixels
    # The pixel at (x, y) is shown at (ax + cy, bx + dy).
    (a, b), (c, d) = np.frombuffer(bytes(matrix)[:36], np.int32).reshape(3, 3)[:2, :2].tolist()
    if (b, c) != (0, 0) and (a, d) == (0, 0):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    elif (b, c) == (0, 0):
        across, down = a, d
    else:
        raise ValueError("its display matrix turns it by other than quarter turns")
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
