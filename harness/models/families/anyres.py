"""Tiles of an image, as LLaVA-NeXT and LLaVA-OneVision cut them (github.com/haotian-liu/LLaVA, mm_utils)."""

from collections.abc import Iterable


def best_resolution(width: int, height: int, resolutions: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Of the (height, width) pairs, the one that keeps most of the image's pixels, then wastes least; the first of equals."""

    def quality(resolution: tuple[int, int]) -> tuple[int, int]:
        tall, wide = resolution
        scale = min(wide / width, tall / height)
        used = min(int(width * scale) * int(height * scale), width * height)
        return used, used - wide * tall

    return max(resolutions, key=quality)


def unpadded(width: int, height: int, columns: int, rows: int) -> tuple[int, int]:
    """(columns, rows) of a grid of features that are left when the padding around the image is cut off again."""
    if width * rows > columns * height:
        real = int(round(height * (columns / width), 7))
        return columns, rows - (rows - real) // 2 * 2
    real = int(round(width * (rows / height), 7))
    return columns - (columns - real) // 2 * 2, rows
