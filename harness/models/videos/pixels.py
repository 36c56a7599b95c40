"""Pixels as transformers' video processors make them, without torchvision.

They need it for three steps. Here torch takes these, with the call that torchvision itself makes: bicubic, with antialiasing,
on 8-bit frames. So scores depend on nothing else installed.
"""

from functools import cache
from pathlib import Path
from typing import Any, ClassVar


def video_processor(folder: Path, model_type: str) -> Any:
    """The family's video processor with what is saved in `folder`; None for a family that is shown no videos."""
    from fitprune.models.parts import SEE_VIDEOS

    if model_type not in SEE_VIDEOS:
        return None
    made = _classes()[model_type]
    record, _ = made.get_video_processor_dict(folder, local_files_only=True)
    return made.from_dict(record)


@cache
def _classes() -> dict[str, Any]:
    """Each family's video processor, with torch in place of torchvision."""
    import torch
    from transformers import BatchFeature
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, SizeDict
    from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
    from transformers.video_processing_utils import BaseVideoProcessor

    modes = {2: "bilinear", 3: "bicubic"}

    class ByTorch(BaseVideoProcessor):
        def convert_to_rgb(self, video: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return video  # frames are read as RGB

        def resize(self, image: Any, size: Any, resample: Any = None, **options: Any) -> Any:  # type: ignore[override]
            new = size.height, size.width
            if tuple(image.shape[-2:]) == new:
                return image
            flat = image.flatten(0, -4)
            made = torch.nn.functional.interpolate(flat, new, mode=modes[int(resample)], align_corners=False, antialias=True)
            return made.view(*image.shape[:-2], *new)

        def normalize(self, image: Any, mean: Any, std: Any, **options: Any) -> Any:  # type: ignore[override]
            mean, std = (torch.as_tensor(part, dtype=image.dtype)[:, None, None] for part in (mean, std))
            return (image - mean) / std

    class OneByOne:
        """Videos of a batch by themselves, not stacked: in floating point, one of them is large enough."""

        def _preprocess(self, videos: list[torch.Tensor], **given: Any) -> Any:
            made = [super(OneByOne, self)._preprocess([video], **given) for video in videos]  # type: ignore[misc]
            return BatchFeature({name: torch.cat([one[name] for one in made]) for name in made[0]})

    class OneVision(OneByOne, LlavaOnevisionVideoProcessor, ByTorch):  # type: ignore[misc]
        pass

    class Qwen3(OneByOne, Qwen3VLVideoProcessor, ByTorch):  # type: ignore[misc]
        pass

    class Qwen2(Qwen3):
        """transformers' Qwen2VLVideoProcessor, whose file cannot be imported without torchvision: each frame by itself has its
        size within bounds, not the video."""

        image_mean, image_std = OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
        size: ClassVar = {"shortest_edge": 128 * 28 * 28, "longest_edge": 28 * 28 * 768}  # type: ignore[misc]
        patch_size = 14

        def __init__(self, **given: Any) -> None:
            bounds = {"shortest_edge": given.pop("min_pixels", None), "longest_edge": given.pop("max_pixels", None)}
            size = {**(given.pop("size", None) or self.size), **{edge: value for edge, value in bounds.items() if value}}
            super().__init__(size=size, **given)

        def resize(self, videos: Any, size: Any, resample: Any, factor: int, **options: Any) -> Any:  # type: ignore[override]
            height, width = smart_resize(videos.shape[-2], videos.shape[-1], factor, size.shortest_edge, size.longest_edge)
            return ByTorch.resize(self, videos, SizeDict(height=height, width=width), resample)

    return {"llava_onevision": OneVision, "qwen2_5_vl": Qwen2, "qwen3_vl": Qwen3}
