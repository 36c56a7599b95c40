"""From an authors' config.json to our configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CLIPVisionConfig, ConvNextConfig, LlamaConfig, PreTrainedConfig

from fitprune.errors import FitPruneError
from harness.models.json_files import read_json
from harness.models.llava_hr.configuration import CLIP_TOWERS, CONVNEXT_TOWERS, LlavaHrConfig, LlavaHrVisionConfig

VOCABULARY_MULTIPLE = 64
_TEXT_FIELDS = frozenset(
    {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act"}
    | {"max_position_embeddings", "initializer_range", "rms_norm_eps", "rope_theta", "rope_scaling", "attention_bias"}
    | {"bos_token_id", "eos_token_id", "pad_token_id"}
)
_TIMM_NAMES = {"dims": "hidden_sizes", "eps": "layer_norm_eps"}


def read_config(
    source: Path, clip_config: Mapping[str, Any] | None = None, convnext_config: Mapping[str, Any] | None = None
) -> LlavaHrConfig:
    """Our configuration of an authors' checkpoint, from its config.json; arguments and errors as `convert_checkpoint`."""
    path = source / "config.json"
    if not path.is_file():
        raise FitPruneError(f"{source}: no config.json; expected a checkpoint as LLaVA-HR's authors publish it")
    fields = read_json(path)
    absent = [name for name in ("vocab_size", "hidden_size", "input_image_size") if not isinstance(fields.get(name), int)]
    if absent:
        raise FitPruneError(f"{path}: no {', '.join(absent)}; not the config of a LLaVA-HR checkpoint")
    if fields.get("image_aspect_ratio", "pad") != "pad":
        raise FitPruneError(f"{path}: image_aspect_ratio is '{fields['image_aspect_ratio']}'; only 'pad' is supported")
    clip = _tower(path, str(fields.get("mm_vision_tower")), CLIP_TOWERS, "clip_config", CLIPVisionConfig, clip_config)
    slow = str(fields.get("vision_tower_slow"))
    convnext = _tower(path, slow, CONVNEXT_TOWERS, "convnext_config", ConvNextConfig, convnext_config)
    convnext["num_stages"] = len(convnext["depths"])
    vocabulary = fields["vocab_size"]
    rows = -(-(vocabulary + 1) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    try:
        vision = LlavaHrVisionConfig(
            clip_config=clip,
            convnext_config=convnext,
            image_size=fields["input_image_size"],
            freeze_vision=bool(fields.get("freeze_vision", False)),
        )
        known = {name: value for name, value in fields.items() if name in _TEXT_FIELDS and value is not None}
        return LlavaHrConfig(vision_config=vision, text_config=LlamaConfig(vocab_size=rows, **known), image_token_id=vocabulary)
    except FitPruneError:
        raise
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise FitPruneError(f"{path}: {' '.join(str(error).split())[:300]}") from None


def _tower(
    path: Path,
    name: str,
    known: Mapping[str, Mapping[str, Any]],
    argument: str,
    kind: type[PreTrainedConfig],
    override: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The sizes that a tower's name implies, with the overriding ones."""
    given = {_TIMM_NAMES.get(key, key): value for key, value in (override or {}).items()}
    unknown = sorted(given.keys() - kind().to_dict().keys())
    if unknown:
        raise FitPruneError(f"{argument} has no {', '.join(unknown)}; it takes the fields of {kind.__name__}")
    sizes = next((sizes for part, sizes in known.items() if part in name), None)
    if sizes is None and override is None:
        raise FitPruneError(f"{path}: unknown tower '{name}' (known: {', '.join(known)}); give its sizes as {argument}")
    return {**(sizes or next(iter(known.values()))), **given}
