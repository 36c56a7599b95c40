"""Which models there are, by which name. A new model is one entry in `MODELS`."""

import importlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fitprune.errors import FitPruneError, unknown_name

# A turn of LLaVA-1.5's instruction tuning (Vicuna v1), for checkpoints that bring no chat template of their own.
VICUNA = (
    "{% for message in messages %}{{ 'USER: ' if message['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>\n' if part['type'] == 'image' else part['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@dataclass(frozen=True)
class ModelSpec:
    """Where a model's weights are, and how it is spoken to.

    Attributes:
        name: what people type; results carry it.
        source: hub repository, or folder.
        revision: pinned commit of the hub repository; None for folders, whose revision is a digest of the weights, and
            for hub ids outside the registry, which take whatever `main` was when they were downloaded.
        kind: "embedded" (ships with the package), "hub" or "folder".
        family: transformers' `model_type`; None when only the checkpoint itself can tell.
        size: download size for people, e.g. "14 GB"; empty where unknown.
        chat_template: Jinja template for a checkpoint without one of its own.
        notes: what a user should know.
    """

    name: str
    source: str
    revision: str | None = None
    kind: str = "hub"
    family: str | None = None
    size: str = ""
    chat_template: str = VICUNA
    notes: str = ""


MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec("llava-tiny", "llava-tiny", kind="embedded", family="llava", notes="ships with the package"),
        ModelSpec(
            "llava-1.5-7b",
            "llava-hf/llava-1.5-7b-hf",
            revision="b234b804b114d9e37bb655e11cbbb5f5e971b7a9",
            family="llava",
            size="14 GB",
            notes="576 visual tokens, 32 layers",
        ),
        ModelSpec(
            "llava-1.5-13b",
            "llava-hf/llava-1.5-13b-hf",
            revision="5dda2880bda009266dda7c4baff660b95ca64540",
            family="llava",
            size="27 GB",
            notes="576 visual tokens, 40 layers",
        ),
    )
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_model(name: str) -> ModelSpec:
    """The spec of a registry name, a hub id ("owner/name") or a local folder.

    A registry name wins over a folder of the same name; write `./llava-tiny` for the folder.
    Raises FitPruneError, with the nearest names, when it is none of these.
    """
    if name in MODELS:
        return MODELS[name]
    if name and Path(name).is_dir():
        return ModelSpec(name, str(Path(name).resolve()), kind="folder")
    for spec in MODELS.values():
        if spec.source == name:
            return spec
    if name.startswith(("/", "./", "../", "~")):
        raise FitPruneError(f"model folder '{name}' does not exist")
    if _HUB_ID.fullmatch(name):
        return ModelSpec(name, name)
    raise unknown_name("model", name, MODELS)


def embedded_folder(name: str) -> Path:
    """The folder of a model that ships with the package."""
    folders: dict[str, Path] = getattr(importlib.import_module("harness.embedded"), "MODELS", {})
    if name not in folders:
        raise FitPruneError(
            f"model '{name}' is not in this installation: train it with 'python -m harness.embedded.train {name}'"
        )
    return Path(folders[name])


def embedded_models() -> Iterable[str]:
    """Names of the models that need no download."""
    return (spec.name for spec in MODELS.values() if spec.kind == "embedded")
