"""`model_facts`: what identifies a model as it will run here, without loading it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.models.checkpoint import checkpoint_folder, digest, require_model, weight_files
from harness.models.devices import choose_dtype
from harness.models.digests import content_digest
from harness.models.shipped import transformers_config

# What else in a checkpoint's folder decides an answer: processor, tokenizer, chat template, generation settings.
_BESIDE = ("*.json", "*.jinja", "*.model", "*.txt")


@dataclass(frozen=True)
class ModelFacts:
    """A model's identity.

    Attributes:
        name: as it was asked for.
        revision: the hub commit, or for a folder the digest of its config and weights; as `LoadedModel.revision`.
        weights: digest of weights, processor and all other files that decide an answer, 16 hex digits.
        dtype: e.g. "float32".
        device: the kind: "cpu", or a card's name.
        config: transformers' configuration.
    """

    name: str
    revision: str
    weights: str
    dtype: str
    device: str
    config: Any


def model_facts(name: str, device: str | None = None) -> ModelFacts:
    """The facts of a model that `load_model(name, device)` would load. Raises FitPruneError as it does."""
    spec = require_model(name)
    folder = checkpoint_folder(spec)
    return ModelFacts(
        name=name,
        revision=folder.name if spec.kind == "hub" else digest(folder),
        weights=weights_digest(folder, (spec.chat_template or "") + spec.variant),
        dtype=str(choose_dtype(None, device)).removeprefix("torch."),
        device=device_kind(device),
        config=transformers_config(spec),
    )


def weights_digest(folder: Path, chat_template: str = "") -> str:
    """16 hex digits over the content of everything in a checkpoint's folder that decides an answer, and over the chat template
    that the registry has for a checkpoint without one.
    """
    total = hashlib.sha256(chat_template.encode())
    beside = {path for pattern in _BESIDE for path in folder.glob(pattern)}
    for path in sorted({*beside, *weight_files(folder)}):
        total.update(path.name.encode() + content_digest(path))
    return total.hexdigest()[:16]


def device_kind(device: str | None) -> str:
    """The kind of device that a model asked for on `device` computes on: "cpu", or the name of the (first) card."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    index = torch.device(device).index if device and device.startswith("cuda") else 0
    return torch.cuda.get_device_name(index or 0)
