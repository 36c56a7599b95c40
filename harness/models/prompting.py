"""`encode`: from questions and images to the model's inputs, one user turn in the processor's chat template."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.models.chat import chat
from harness.models.families import FAMILIES

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from harness.models.loading import LoadedModel, ModelOutline


def encode(
    loaded: "LoadedModel | ModelOutline", questions: Sequence[str], images: "Sequence[Sequence[Image]]"
) -> "dict[str, torch.Tensor]":
    """The model's inputs for a batch, left-padded, on its device and in its dtype.

    Args:
        questions: one per sample.
        images: each sample's images, which stand before its question; maybe none.
    """
    import torch

    processor: Any = loaded.processor
    texts = [chat(processor, question, len(own)) for question, own in zip(questions, images, strict=True)]
    # Sample by sample: LLaVA-OneVision cuts tiles of an image only where it is its prompt's only one.
    family = FAMILIES.get(loaded.config.model_type)
    given = [list(own) for own in images if own or (family and family.nested)]
    bos = processor.tokenizer.bos_token
    encoded = processor(
        images=given if any(given) else None,
        text=texts,
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
