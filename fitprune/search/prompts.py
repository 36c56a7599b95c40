"""`embed`: calibration prompts as the text decoder is given them, embedded once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fitprune.errors import FitPruneError
from fitprune.models.deepstack import FEATURES
from fitprune.models.execution import execution_device, floating_type
from fitprune.models.parts import model_parts, newline_mask, refuse_video, visual_mask

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Prompt:
    """A batch as it enters the text decoder.

    Attributes:
        inputs: the tensors among the decoder's arguments: `inputs_embeds` (batch, T, hidden_size), masks, position ids, and
            what DeepStack adds, (levels, visual tokens, hidden_size).
        visual_mask: bool (batch, T): where the visual tokens are, the newlines of tiled models among them.
        newline_mask: bool (batch, T): where these newlines are.
    """

    inputs: dict[str, torch.Tensor]
    visual_mask: torch.Tensor
    newline_mask: torch.Tensor

    def tensors(self) -> dict[str, torch.Tensor]:
        """Inputs and masks in one dictionary, to be written to a file."""
        return {**self.inputs, "visual_mask": self.visual_mask, "newline_mask": self.newline_mask}

    def after_first(self, hidden: torch.Tensor) -> "Prompt":
        """The same with what leaves the decoder's first layer, DeepStack's features of that layer included."""
        features = self.inputs.get(FEATURES)
        added = {} if features is None else {FEATURES: torch.cat([torch.zeros_like(features[:1]), features[1:]])}
        return replace(self, inputs=self.inputs | added | {"inputs_embeds": hidden})

    @classmethod
    def of(cls, tensors: dict[str, torch.Tensor]) -> "Prompt":
        """The inverse of `tensors`."""
        inputs = dict(tensors)
        visual, newline = inputs.pop("visual_mask"), inputs.pop("newline_mask")
        return cls(inputs, visual, newline)


class _DecoderReached(Exception):
    """Raised when the decoder is about to run."""


def embed(model: nn.Module, batch: Batch) -> Prompt:
    """Run a batch of processor outputs through the vision tower and projector, up to the text decoder.

    Raises:
        FitPruneError: a sample without visual tokens, or with a video that the model does not see as one.
    """
    parts, inputs = model_parts(model), on_device(model, batch)
    refuse_video(parts, inputs)
    visual, newline = visual_mask(parts, inputs), list[torch.Tensor]()
    caught: dict[str, torch.Tensor] = {}

    def stop(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        for name, value in kwargs.items():
            if isinstance(value, torch.Tensor):
                caught[name] = value
            elif name == FEATURES and value:
                caught[name] = torch.stack(value)
        if isinstance(kwargs.get("attention_mask"), dict) and inputs.get("attention_mask") is not None:
            caught["attention_mask"] = inputs["attention_mask"]  # of the masks made of it the pruner makes its own
        # Only while the model runs is an offloaded newline embedding there to be compared with.
        newline.append(newline_mask(parts, visual.to(caught["inputs_embeds"].device), caught["inputs_embeds"]))
        raise _DecoderReached

    # Models with positions on several axes remember how far the latest prompt's run ahead of its length.
    deltas = getattr(parts.parent, "rope_deltas", None)
    hook = parts.decoder.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad():
            parts.parent(**inputs, use_cache=False)
    except _DecoderReached:
        pass
    finally:
        hook.remove()
        if hasattr(parts.parent, "rope_deltas"):
            parts.parent.rope_deltas = deltas
    mask = inputs.get("attention_mask")
    if not bool((visual if mask is None else visual & mask.bool()).any(1).all()):
        raise FitPruneError("a calibration sample has no visual tokens; every sample needs an image or a video.")
    return Prompt(caught, visual, *newline)


def on_device(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """A batch without its labels, on the decoder's device and in its precision."""
    decoder = model_parts(model).decoder
    device, dtype = execution_device(decoder), floating_type(decoder)
    return {
        name: value.to(device, dtype if value.is_floating_point() else None) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
        if name != "labels"
    }
