"""Frames of a long video, of which what lies between them is not decoded."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LONG = 512  # frames of a file from which on it is worth reading its packets first


def sought(path: Path, numbers: Sequence[int], total: int, read: Callable[[Any], Any]) -> dict[int, Any] | None:
    """What `read` makes of the frames of these numbers, in the order in which they are shown; None where the file's packets do
    not say for certain which they are. Then all of them must be decoded.

    Which frame is which is known by times: of the packets, of which there must be `total` with a time of its own each, and of
    decoded frames. From the last key frame before a frame on, all up to it are decoded.

    Raises what PyAV raises for a file that cannot be decoded.
    """
    import av

    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(file.streams.video[0]) if packet.size]
    known = [packet.pts for packet in packets if packet.pts is not None and not (packet.is_discard or packet.is_corrupt)]
    if len(known) != total or len(packets) != total or len(set(known)) != total:
        return None
    times, keys = sorted(known), sorted(packet.pts for packet in packets if packet.is_keyframe and packet.pts is not None)
    found: dict[int, Any] = {}
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.thread_type = "AUTO"
        at, shown = times[0] - 1, iter(())  # type: int, Any
        for number in sorted(set(numbers)):
            wanted = times[number]
            place = bisect_right(keys, wanted) - 1
            if place < 0:
                return None
            if at < keys[place]:
                file.seek(keys[place], stream=stream)
                shown = file.decode(stream)
            frame = next((frame for frame in shown if frame.pts is None or frame.pts >= wanted), None)
            if frame is None or frame.pts != wanted:
                return None
            found[number], at = read(frame), wanted
    return found
