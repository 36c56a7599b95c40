"""Which models there are, by which name. A new model is one entry in its family's file (`families/`)."""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fitprune.errors import FitPruneError, unknown_name
from harness.models.families import ENTRIES, FAMILY_NAMES
from harness.models.families.absent import reason_against
from harness.models.spec import NO_UNPAD, ModelSpec

MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in ENTRIES}

EMBEDDED: dict[str, Path] = {
    spec.name: Path(__file__).parent / "embedded" / spec.name for spec in ENTRIES if spec.kind == "embedded"
}
"""Folders of the models that ship with the package, for `from_pretrained`."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_model(name: str) -> ModelSpec:
    """The spec of a registry name, a hub id ("owner/name") or a local folder.

    A registry name wins over a folder of the same name; write `./llava-tiny` for the folder.
    A family's name is none of these: `harness.models.family_names` says which model it stands for.
    `NAME:no-unpad` is the same model run otherwise: see `spec.NO_UNPAD`.
    Raises FitPruneError, with the nearest names, when it is none of these.
    """
    base, colon, variant = name.rpartition(":")
    if colon and variant == NO_UNPAD:
        return replace(find_model(base), variant=variant)
    if name in MODELS:
        return MODELS[name]
    if os.path.isdir(name):  # of a name that is too long for a file's, too
        return ModelSpec(name, str(Path(name).resolve()), kind="folder")
    for spec in MODELS.values():
        if spec.source == name:
            return spec
    if (against := reason_against(name)) is not None:
        raise FitPruneError(f"'{name}' {against}.")
    if name.startswith(("/", "./", "../", "~")):
        raise FitPruneError(f"model folder '{name}' does not exist")
    if _HUB_ID.fullmatch(name):
        return ModelSpec(name, name)
    raise unknown_name("model", name, [*MODELS, *FAMILY_NAMES])


def embedded_folder(name: str) -> Path:
    """The folder of a model that ships with the package."""
    if name not in EMBEDDED:
        raise FitPruneError(f"model '{name}' is not in this installation: train it with 'python -m training {name}'")
    return EMBEDDED[name]


def embedded_models() -> Iterable[str]:
    """Names of the models that need no download."""
    return (spec.name for spec in MODELS.values() if spec.kind == "embedded")
