"""Prompts with videos for the small models of `families`: their processors, given what makes frames into pixels.

transformers' own video processors need torchvision. What stands here does the same to frames that need no resizing.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import BatchFeature
from transformers.video_utils import VideoMetadata

from tests.support.families import ON_AXES, PATCH, PROCESSORS, TILE, chat_template, image, tokenizer

SEE_VIDEOS = ("llava_onevision", *ON_AXES)
FPS = 5


@dataclass(frozen=True)
class Clip:
    """A video of noise; LLaVA-OneVision's are squares of the tower's size."""

    frames: int
    width: int = TILE
    height: int = TILE
    seed: int = 0

    def pictures(self):
        """uint8 (frames, height, width, 3)."""
        return np.stack([np.asarray(image(self.width, self.height, self.seed + frame)) for frame in range(self.frames)])


class Frames:
    """What makes videos into pixels: (frames, channels, height, width) each, or patches of two frames for Qwen's towers."""

    merge_size, temporal_patch_size = 2, 2

    def __init__(self, family):
        self.family = family

    def __call__(self, videos, **_):
        videos = [torch.tensor(video).permute(0, 3, 1, 2) / 127.5 - 1 for video in videos]
        seen = [VideoMetadata(len(video), FPS, frames_indices=list(range(len(video)))) for video in videos]
        if self.family not in ON_AXES:
            return BatchFeature({"pixel_values_videos": torch.stack(videos), "video_metadata": seen})
        videos = [torch.cat([video, video[-1:]]) if len(video) % 2 else video for video in videos]
        grids = [(len(video) // 2, video.shape[2] // PATCH, video.shape[3] // PATCH) for video in videos]
        pixels = torch.cat([self._patches(video, *grid) for video, grid in zip(videos, grids, strict=True)])
        return BatchFeature({"pixel_values_videos": pixels, "video_grid_thw": torch.tensor(grids), "video_metadata": seen})

    def _patches(self, video, times, rows, columns):
        patches = []
        for time in range(times):
            for row, column in self._by_squares(rows, columns):
                at = [slice(PATCH * place, PATCH * place + PATCH) for place in (row, column)]
                patches.append(video[2 * time : 2 * time + 2, :, at[0], at[1]].transpose(0, 1).flatten())
        return torch.stack(patches)

    @staticmethod
    def _by_squares(rows, columns):
        """The four patches that become one token stand together."""
        for row in range(0, rows, 2):
            for column in range(0, columns, 2):
                yield from ((row, column), (row, column + 1), (row + 1, column), (row + 1, column + 1))


def processor(family):
    """The family's processor, for images and videos."""
    _, processor_class, _, images, settings = PROCESSORS[family]

    class WithFrames(processor_class):
        def check_argument_for_proper_class(self, argument_name, argument):
            if argument_name == "video_processor":
                return Frames
            return super().check_argument_for_proper_class(argument_name, argument)

    return WithFrames(
        image_processor=images(),
        tokenizer=tokenizer(family),
        video_processor=Frames(family),
        chat_template=chat_template(family),
        **settings,
    )


def inputs(processor, samples, seed=0):
    """As `families.inputs`, with `Clip`s among the parts of a sample."""
    marks = {tuple: processor.image_token, Clip: processor.video_token}
    text = [" ".join(marks.get(type(part), part) for part in sample) for sample in samples]
    images = [[image(*part, seed) for part in sample if isinstance(part, tuple)] for sample in samples]
    images = [own for own in images if own] or None
    videos = [part.pictures() for sample in samples for part in sample if isinstance(part, Clip)] or None
    made = processor(images=images, videos=videos, text=text, padding=True, return_tensors="pt")
    return {name: value for name, value in made.items() if name != "video_metadata"}
