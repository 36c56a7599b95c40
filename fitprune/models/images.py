"""`Images`: the pixels of each image of a forward, and the number of prompt tokens that it became."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Images:
    """The images of a batch in prompt order; where a model treats the tiles of an image as images, these.

    Attributes:
        pixels: what each image was to the vision tower: (channels, height, width), (tiles, channels, height, width) padded
            with empty tiles to the largest of the batch, or (patches, values).
        tokens: how many prompt positions each takes, newline tokens included.
    """

    pixels: list[torch.Tensor]
    tokens: list[int]

    @classmethod
    def of(cls, arguments: Mapping[str, Any], features: Any) -> "Images | None":
        """From the arguments of a model's `get_image_features` and what it gave; None where they cannot be matched."""
        pixels, packed = arguments.get("pixel_values"), getattr(features, "pooler_output", None)
        if pixels is None or packed is None:
            return None
        tokens = [len(image) for image in packed]
        grid = arguments.get("image_grid_thw")
        if grid is not None:
            pixels = pixels.split(grid.prod(-1).tolist())
        return cls(list(pixels), tokens) if len(pixels) == len(tokens) else None

    def of_samples(self, counts: list[int]) -> list[list[torch.Tensor]] | None:
        """The images of each sample whose prompt has `counts` positions for them; None where the counts do not match.

        With beams or several returned sequences each sample stands several times in a row, its images once.
        """
        expansion, rest = divmod(sum(counts), max(sum(self.tokens), 1))
        if rest or not expansion:
            return None
        samples: list[list[torch.Tensor]] = []
        images = iter(zip(self.pixels, self.tokens, strict=True))
        for count in counts[::expansion]:
            own: list[torch.Tensor] = []
            while count > 0:
                pixels, tokens = next(images, (None, 0))
                if pixels is None:
                    return None
                own.append(pixels)
                count -= tokens
            if count < 0:
                return None
            samples.append(own)
        return [own for own in samples for _ in range(expansion)]


def pixel_bytes(pixels: torch.Tensor) -> bytes:
    """An image's values as float32, without the empty tiles at its end, of which there are more in some batches."""
    if pixels.ndim == 4:
        filled = pixels.flatten(1).any(1).nonzero()
        pixels = pixels[: int(filled.max()) + 1] if len(filled) else pixels[:1]
    return pixels.detach().float().cpu().contiguous().numpy().tobytes()
