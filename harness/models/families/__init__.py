"""One file per family: what its models have in common, and an entry for each of them."""

from dataclasses import replace

from harness.models.families import (
    gemma3,
    internvl,
    llava,
    llava_hr,
    llava_next,
    llava_onevision,
    qwen2_5_vl,
    qwen3_vl,
    smolvlm,
)
from harness.models.spec import Family, FamilyName

_FILES = (llava, llava_next, llava_hr, llava_onevision, qwen2_5_vl, qwen3_vl, internvl, smolvlm, gemma3)

FAMILIES: dict[str, Family] = {file.FAMILY.model_type: file.FAMILY for file in _FILES}
ENTRIES = tuple(replace(entry, family=file.FAMILY.model_type) for file in _FILES for entry in file.MODELS)
FAMILY_NAMES: dict[str, FamilyName] = {file.NAME.name: file.NAME for file in _FILES}
