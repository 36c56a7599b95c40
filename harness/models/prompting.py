"""`encode`: from questions, images and videos to the model's inputs, one user turn in the processor's chat template."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fitprune.errors import FitPruneError
from harness.models.chat import chat
from harness.models.families import FAMILIES

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from harness.models.loading import LoadedModel, ModelOutline
    from harness.models.videos.reading import Video


def encode(
    loaded: "LoadedModel | ModelOutline",
    questions: Sequence[str],
    images: "Sequence[Sequence[Image]]",
    videos: "Sequence[Sequence[Video]]" = (),
) -> "dict[str, torch.Tensor]":
    """The model's inputs for a batch, left-padded, on its device and in its dtype.

    Args:
        questions: one per sample.
        images: each sample's images, which stand before its question; maybe none.
        videos: each sample's videos, which stand behind its images; none at all where it is empty.

    Raises:
        FitPruneError: videos for a model that is shown images alone; of other numbers of frames, for LLaVA-OneVision.
    """
    import torch

    processor: Any = loaded.processor
    videos = videos or [()] * len(questions)
    shown = zip(questions, images, videos, strict=True)
    texts = [chat(processor, question, len(own), len(clips)) for question, own, clips in shown]
    # Sample by sample: LLaVA-OneVision cuts tiles of an image only where it is its prompt's only one.
    family = FAMILIES.get(loaded.config.model_type)
    given = [list(own) for own in images if own or (family and family.nested)]
    bos = processor.tokenizer.bos_token
    encoded = processor(
        images=given if any(given) else None,
        text=texts,
        **_videos(loaded, [clip for clips in videos for clip in clips]),
        padding=True,
        return_tensors="pt",
        # A template that writes the BOS token itself must not be given a second one.
        add_special_tokens=not (bos and texts[0].startswith(bos)),
    )
    return {
        name: value.to(loaded.device, loaded.dtype) if value.is_floating_point() else value.to(loaded.device)
        for name, value in encoded.items()
        if isinstance(value, torch.Tensor) and ((family and family.token_types) or name != "token_type_ids")
    }


def _videos(loaded: "LoadedModel | ModelOutline", clips: "list[Video]") -> dict[str, Any]:
    """What a processor is given for videos."""
    if not clips:
        return {}
    if getattr(loaded.processor, "video_processor", None) is None:
        raise FitPruneError(
            f"'{loaded.name}' is shown images alone; models with videos are LLaVA-OneVision, Qwen2.5-VL and Qwen3-VL"
        )
    from transformers.video_utils import VideoMetadata

    # Qwen's towers take two frames at a time: of a single one, the same twice.
    least = getattr(loaded.processor.video_processor, "temporal_patch_size", 1)
    if least == 1 and len({len(clip.indices) for clip in clips}) > 1:
        raise FitPruneError(f"'{loaded.name}' takes videos of a batch with equally many frames; read all with the same frames=")
    shown = [[*range(len(clip.indices)), *[len(clip.indices) - 1] * (least - len(clip.indices))] for clip in clips]
    known = [
        VideoMetadata(clip.total, clip.fps, duration=clip.total / clip.fps, frames_indices=[clip.indices[at] for at in own])
        for clip, own in zip(clips, shown, strict=True)
    ]
    videos = [clip.frames[own] for clip, own in zip(clips, shown, strict=True)]
    return {"videos": videos, "video_metadata": known, "do_sample_frames": False}
