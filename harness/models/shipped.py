"""Configurations that ship with the package: what is known of a hub model without its weights."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fitprune.errors import FitPruneError
from harness.models.checkpoint import checkpoint_folder
from harness.models.families import FAMILIES
from harness.models.families.absent import reason_against
from harness.models.json_files import read_json
from harness.models.spec import Family, ModelSpec

CONFIGS = Path(__file__).parent / "configs"


def config_file(spec: ModelSpec) -> Path:
    """The `config.json` of a model: the one that ships for a registered hub model, else that of its folder.

    Raises FitPruneError for a folder without one, and for a hub model that is neither registered nor downloaded.
    """
    shipped = CONFIGS / f"{spec.name}.json"
    if spec.kind == "hub" and shipped.is_file():
        return shipped
    path = checkpoint_folder(spec) / "config.json"
    if not path.is_file():
        raise FitPruneError(f"{path.parent}: no config.json; not a transformers checkpoint")
    return path


def read_config(spec: ModelSpec) -> Mapping[str, Any]:
    """The configuration as a dictionary, with `image_unpad` false for a variant that cuts no padding off; no torch, no
    transformers.

    Raises FitPruneError for such a variant of a model that has no padding to cut off.
    """
    config = read_json(config_file(spec))
    if not spec.variant:
        return config
    if config.get("model_type") != "llava_next":
        raise FitPruneError(
            f"'{spec.name}:{spec.variant}': only a LLaVA-NeXT cuts padding off, and this is {config.get('model_type')}; "
            f"take --model {spec.name}"
        )
    return {**config, "image_unpad": False}


def family_of(spec: ModelSpec, config: Mapping[str, Any]) -> Family:
    """The family of a registered model, or the one that a checkpoint's `model_type` names.

    Raises FitPruneError for a `model_type` outside the families.
    """
    name = spec.family or str(config.get("model_type"))
    if name not in FAMILIES and (against := reason_against(name)) is not None:
        raise FitPruneError(f"'{spec.name}' {against}.")
    if name not in FAMILIES:
        raise FitPruneError(f"'{spec.name}' is of type '{name}'; known are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def known_family(model_type: object) -> Family | None:
    """The family of a `model_type`, which transformers knows from here on; None outside the families."""
    family = FAMILIES.get(str(model_type))
    if family and family.registers:
        importlib.import_module(family.registers)
    return family


def transformers_config(spec: ModelSpec) -> Any:
    """The configuration as transformers' own object."""
    from transformers import CONFIG_MAPPING

    record = dict(read_config(spec))
    kind = str(record.pop("model_type", None))
    known_family(kind)
    if kind not in CONFIG_MAPPING:
        raise FitPruneError(f"{config_file(spec)}: transformers knows no model of type '{kind}'")
    return CONFIG_MAPPING[kind].from_dict(record)
