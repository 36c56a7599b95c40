"""Sizes of images, as people write them."""

import re

from fitprune.errors import FitPruneError

# An ordinary photograph; what a model makes of it is what its table entry says.
TYPICAL = "1024x768"


def image_size(text: str) -> tuple[int, int]:
    """(width, height) of "1024x768". Raises FitPruneError for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,4})[x×]([1-9]\d{0,4})", text)
    if match is None:
        raise FitPruneError(f"an image size is written WIDTHxHEIGHT in pixels, such as {TYPICAL}, not '{text}'")
    return int(match[1]), int(match[2])
