"""`Images`: the pixels of each image or video of a forward, and the number of prompt tokens that it became."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fitprune.errors import UnsupportedModel
from fitprune.models.parts import PIXELS


@dataclass(frozen=True)
class Images:
    """The images of a batch in prompt order, or its videos; where a model treats the tiles of an image as images, these.

    Attributes:
        pixels: what each image was to the vision tower: (channels, height, width), (tiles, channels, height, width) padded
            with empty tiles to the largest of the batch, or (patches, values); of a video, (frames, channels, height, width)
            or (patches, values).
        tokens: how many prompt positions each takes, newline tokens included.
        frames: of each video, its frames (Qwen's towers make one of two pictures), and the tokens of each; empty for images.
    """

    pixels: list[torch.Tensor]
    tokens: list[int]
    frames: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, arguments: Mapping[str, Any], features: Any) -> "Images | None":
        """From the arguments of a model's `get_image_features`, or of `get_video_features`, and what it gave; None where they
        cannot be matched.
        """
        videos, packed = arguments.get(PIXELS["video"]), getattr(features, "pooler_output", None)
        pixels = arguments.get(PIXELS["image"]) if videos is None else videos
        if pixels is None or packed is None:
            return None
        tokens = [len(image) for image in packed]
        grid = arguments.get("image_grid_thw" if videos is None else "video_grid_thw")
        if grid is not None:
            grid = grid.tolist()
            pixels = pixels.split([math.prod(each) for each in grid])
        if len(pixels) != len(tokens) and pixels[0].ndim == 4:
            # SmolVLM's features come tile by tile before transformers 5.20, of those tiles that are not empty.
            tiles = torch.cat(list(pixels))
            pixels = tiles[tiles.flatten(1).any(1)]
        if len(pixels) != len(tokens):
            return None
        frames = []
        if videos is not None:
            # LLaVA-OneVision puts a newline token behind each video.
            of_each = [(len(each), 1) for each in pixels] if grid is None else [(each[0], 0) for each in grid]
            frames = [(count, (all_of - behind) // count) for all_of, (count, behind) in zip(tokens, of_each, strict=True)]
        # SmolVLM has empty tiles for a prompt without an image.
        own = [(each, count) for each, count in zip(pixels, tokens, strict=True) if count]
        return cls([each for each, _ in own], [count for _, count in own], frames)

    def on_host(self) -> list[torch.Tensor]:
        """Their pixels on the host, as float32: one copy for all of them."""
        values = torch.cat([pixels.detach().float().flatten() for pixels in self.pixels]).cpu()
        parts = values.split([pixels.numel() for pixels in self.pixels])
        return [part.view(pixels.shape) for part, pixels in zip(parts, self.pixels, strict=True)]

    def of_samples(self, counts: list[int]) -> list[list[int]] | None:
        """Which images are those of each sample whose prompt has `counts` positions for them; None where the counts do not
        match.

        With beams or several returned sequences each sample stands several times in a row, its images once.
        """
        expansion, rest = divmod(sum(counts), max(sum(self.tokens), 1))
        if rest or not expansion:
            return None
        samples: list[list[int]] = []
        images = iter(enumerate(self.tokens))
        for count in counts[::expansion]:
            own: list[int] = []
            while count > 0:
                image, tokens = next(images, (-1, 0))
                if image < 0:
                    return None
                own.append(image)
                count -= tokens
            if count < 0:
                return None
            samples.append(own)
        return [own for own in samples for _ in range(expansion)]


@dataclass(frozen=True)
class Encoded:
    """What a model's `get_image_features` or `get_video_features` was given and gave.

    Attributes:
        images: what was encoded; None where it cannot be matched to the features.
        features: per image or video, its features; None where the model does not say.
    """

    images: Images | None
    features: tuple[torch.Tensor, ...] | None

    @classmethod
    def of(cls, arguments: Mapping[str, Any], features: Any) -> "Encoded":
        """From the arguments of such a call and what it gave."""
        packed = getattr(features, "pooler_output", None)
        # Not the list itself: `generate` repeats it in place for beams, and whoever has encoded ahead may reorder it.
        return cls(Images.of(arguments, features), None if packed is None else tuple(packed))

    @property
    def tokens(self) -> int:
        """Features of all images."""
        return sum(image[..., 0].numel() for image in self.features or ())


def unmatched(kind: str, tokens: int, images: int, features: int) -> UnsupportedModel:
    """The error for prompts with another number of tokens of a kind, "image" or "video", than these have features."""
    return UnsupportedModel(
        f"the prompt has {tokens} {kind} tokens, its {images} {kind}s have {features} features; prepare text and {kind}s "
        "together with the model's processor, without truncation."
    )


def same_images(given: Sequence[torch.Tensor], encoded: tuple[torch.Tensor, ...]) -> bool:
    """Whether the features `given`, per image, are those `encoded`, in order.

    With beams each prompt's images stand several times in a row, prompt by prompt. Features on another device are copies.
    """
    copies, rest = divmod(len(given), max(len(encoded), 1))
    if rest or not copies:
        return False
    first = 0
    while first < len(encoded):
        # The images of one prompt: the fewest that stand there as often as all do.
        at = first * copies
        sizes = range(1, len(encoded) - first + 1)
        size = next((n for n in sizes if _alike(given[at : at + n * copies], encoded[first : first + n] * copies)), 0)
        if not size:
            return False
        first += size
    return True


def _alike(given: Sequence[torch.Tensor], encoded: Sequence[torch.Tensor]) -> bool:
    return all(_same(one, other) for one, other in zip(given, encoded, strict=True))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one is other or one.shape != other.shape:
        return one is other
    # Views of one place are made anew each time that a tensor of images is looked through.
    return one.data_ptr() == other.data_ptr() or torch.equal(one.to(other.device), other)


def pixel_bytes(pixels: torch.Tensor) -> bytes:
    """The values, as float32, of an image on the host, without the empty tiles at its end: some batches have more of these."""
    values = pixels.detach().float().numpy()
    if values.ndim == 4:
        filled = np.flatnonzero(values.any((1, 2, 3)))
        values = values[: filled.max(initial=0) + 1]
    return values.tobytes()
