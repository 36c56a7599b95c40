"""Calibration prompts, embedded once: what the text decoder is given, kept on disk between passes."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fitprune.anatomy import anatomy, visual_mask
from fitprune.errors import FitPruneError

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Prompt:
    """A batch as it enters the text decoder.

    Attributes:
        inputs: the tensors among the decoder's arguments: `inputs_embeds` (batch, T, hidden_size), masks, position ids.
        visual_mask: bool (batch, T): where the visual tokens are.
    """

    inputs: dict[str, torch.Tensor]
    visual_mask: torch.Tensor


class _Reached(Exception):
    """The decoder was about to run."""


def embed(model: nn.Module, batch: Batch) -> Prompt:
    """Run a batch of processor outputs through the vision tower and projector, up to the text decoder.

    Raises:
        FitPruneError: a sample without visual tokens.
    """
    parts = anatomy(model)
    parameter = next(parts.decoder.parameters())
    inputs: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            value = value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
        if name != "labels":
            inputs[name] = value
    caught: dict[str, torch.Tensor] = {}

    def stop(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        caught.update({name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor)})
        raise _Reached

    hook = parts.decoder.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with torch.no_grad():
            parts.parent(**inputs, use_cache=False)
    except _Reached:
        pass
    finally:
        hook.remove()
    visual = visual_mask(parts, inputs)
    mask = inputs.get("attention_mask")
    if not bool((visual if mask is None else visual & mask.bool()).any(1).all()):
        raise FitPruneError("a calibration sample has no visual tokens; every sample needs an image.")
    return Prompt(caught, visual)


class Spool:
    """Prompts in a temporary folder, so that memory holds one batch at a time. Deleted with the object."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fitprune-")
        self._files: list[Path] = []

    def __len__(self) -> int:
        return len(self._files)

    def add(self, prompt: Prompt) -> None:
        """Write one batch."""
        path = Path(self._folder.name) / f"{len(self._files)}.safetensors"
        tensors = {**prompt.inputs, "visual_mask": prompt.visual_mask}
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, path)
        self._files.append(path)

    def __iter__(self) -> Iterator[Prompt]:
        for path in self._files:
            tensors = load_file(path)
            visual = tensors.pop("visual_mask")
            yield Prompt(tensors, visual)
