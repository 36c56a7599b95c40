"""Layers at which authors prune, scaled to decoders of another depth."""

from collections.abc import Iterable

OF_LAYERS = 32


def scaled_stages(stages: Iterable[int], layers: int, *, apart: int = 0) -> tuple[int, ...]:
    """Stages of a 32-layer decoder in one of `layers` layers.

    Each is rounded, at least 1, and at least `apart` layers after the one before it.
    """
    scaled: list[int] = []
    for stage in stages:
        earliest = scaled[-1] + apart if scaled else 1
        scaled.append(max(earliest, round(stage * layers / OF_LAYERS)))
    return tuple(scaled)
