"""From the authors' checkpoint layout to ours: every tensor accounted for, or nothing written."""

import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    ConvNextConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.tokenization_utils_base import AddedToken
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from fitprune.errors import FitPruneError
from harness.models.llava_hr.configuration import CLIP_TOWERS, CONVNEXT_TOWERS, LlavaHrConfig, LlavaHrVisionConfig
from harness.models.llava_hr.image_processing import LlavaHrImageProcessor
from harness.models.llava_hr.modeling import LlavaHrForConditionalGeneration
from harness.models.llava_hr.names import is_ignored, to_authors, to_ours
from harness.models.llava_hr.processing import LlavaHrProcessor
from harness.models.llava_hr.source import find_shards, read_json, read_shard

IMAGE_TOKEN = "<image>"
VOCABULARY_MULTIPLE = 64
_TEXT_FIELDS = frozenset(
    {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act"}
    | {"max_position_embeddings", "initializer_range", "rms_norm_eps", "rope_theta", "rope_scaling", "attention_bias"}
    | {"bos_token_id", "eos_token_id", "pad_token_id"}
)
_TIMM_NAMES = {"dims": "hidden_sizes", "eps": "layer_norm_eps"}
_VOCABULARY_TENSORS = ("model.language_model.embed_tokens.weight", "lm_head.weight")


def convert_checkpoint(
    source_dir: str | os.PathLike[str],
    target_dir: str | os.PathLike[str],
    clip_config: Mapping[str, Any] | None = None,
    convnext_config: Mapping[str, Any] | None = None,
) -> Path:
    """Write an authors' LLaVA-HR checkpoint as a folder that transformers' Auto classes load; returns the folder.

    Every tensor is read once and keeps its dtype; one shard is in memory at a time. `<image>` gets the id after the
    authors' vocabulary, and the vocabulary is padded to a multiple of 64. The added rows of the embedding and of the head
    are the mean of the others, so that an added token's logit is the mean logit, which is never the largest.

    Args:
        source_dir: config.json, tokenizer files, and the weights as .bin (read without running any code) or safetensors.
            Without tokenizer files a warning is given and no processor is written.
        target_dir: must not exist, or be empty. It appears when everything is in it, and not at all after an error.
        clip_config, convnext_config: fields of `CLIPVisionConfig` and `ConvNextConfig` (or timm's `dims` and `eps`) that
            override the sizes implied by the names `mm_vision_tower` and `vision_tower_slow` in config.json.

    Raises:
        FitPruneError: a tensor that is unknown, missing, doubled or of a wrong shape, a damaged or missing file, an
            unknown tower without sizes, a target that is in use.
    """
    source, target = Path(source_dir), Path(target_dir)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FitPruneError(f"{target}: exists already; choose a folder that does not")
    config = read_config(source, clip_config, convnext_config)
    tokenizer = _read_tokenizer(source, config)
    scratch = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        config.dtype = _write_weights(source, scratch, config)
        config.architectures = [LlavaHrForConditionalGeneration.__name__]
        config.save_pretrained(scratch)
        text = config.text_config
        special = {"bos_token_id": text.bos_token_id, "eos_token_id": text.eos_token_id, "pad_token_id": text.pad_token_id}
        GenerationConfig(**special).save_pretrained(scratch)
        if tokenizer is not None:
            side = config.vision_config.image_size
            images = LlavaHrImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
            LlavaHrProcessor(images, tokenizer, image_seq_length=config.image_seq_length).save_pretrained(scratch)
        scratch.rename(target)
    except (OSError, SafetensorError) as error:
        raise FitPruneError(f"{target}: cannot be written: {' '.join(str(error).split())[:300]}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def read_config(
    source: Path, clip_config: Mapping[str, Any] | None = None, convnext_config: Mapping[str, Any] | None = None
) -> LlavaHrConfig:
    """Our configuration of an authors' checkpoint, from its config.json; arguments and errors as `convert_checkpoint`."""
    path = source / "config.json"
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


def _write_weights(source: Path, target: Path, config: LlavaHrConfig) -> torch.dtype:
    """Convert the weights file by file; returns the language-model head's dtype."""
    with torch.device("meta"):
        expected = {name: value.shape for name, value in LlavaHrForConditionalGeneration(config).state_dict().items()}
    shards = find_shards(source)
    if shards.listed is not None:
        _account(source, shards.listed, expected)
    places: dict[str, str] = {}
    found: set[str] = set()
    size, dtype = 0, torch.float32
    for number, path in enumerate(shards.files, 1):
        converted: dict[str, torch.Tensor] = {}
        for name, tensor in read_shard(path):
            if name in found:
                raise FitPruneError(f"{path}: holds {name} a second time; the checkpoint is inconsistent")
            found.add(name)
            ours = to_ours(name)
            if is_ignored(name) or ours not in expected:
                continue
            if ours in _VOCABULARY_TENSORS:
                tensor = _with_added_rows(path, name, tensor, config)
            if tensor.shape != expected[ours]:
                raise FitPruneError(
                    f"{path}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected[ours])}; "
                    "check the sizes in config.json, or override them"
                )
            shared = tensor.untyped_storage().nbytes() != tensor.nbytes
            converted[ours] = tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()
        file = f"model-{number:05d}-of-{len(shards.files):05d}.safetensors"
        save_file(converted, target / file, metadata={"format": "pt"})
        places |= dict.fromkeys(converted, file)
        size += sum(tensor.nbytes for tensor in converted.values())
        dtype = converted["lm_head.weight"].dtype if "lm_head.weight" in converted else dtype
    _account(source, found, expected)
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return dtype


def _account(source: Path, names: Iterable[str], expected: Mapping[str, Any]) -> None:
    """Refuse a checkpoint with a tensor too many or too few, in the authors' names."""
    used = {name for name in names if not is_ignored(name)}
    needed = {to_authors(name) for name in expected}
    problems = [
        f"{len(group)} {kind} ({', '.join(sorted(group)[:3])}{', …' if len(group) > 3 else ''})"
        for kind, group in (("unknown", used - needed), ("missing", needed - used))
        if group
    ]
    if problems:
        raise FitPruneError(f"{source}: not the tensors of this LLaVA-HR: {' and '.join(problems)}; nothing was written")


def _with_added_rows(path: Path, name: str, tensor: torch.Tensor, config: LlavaHrConfig) -> torch.Tensor:
    """(authors' vocabulary, hidden) → (padded vocabulary, hidden), each added row the mean of the others."""
    if tensor.dim() != 2 or len(tensor) != config.image_token_id:
        raise FitPruneError(
            f"{path}: {name} has shape {tuple(tensor.shape)}; config.json says a vocabulary of {config.image_token_id}"
        )
    mean = tensor.mean(0, keepdim=True, dtype=torch.float32).to(tensor.dtype)
    return torch.cat([tensor, mean.expand(config.text_config.vocab_size - len(tensor), -1)])


def _read_tokenizer(source: Path, config: LlavaHrConfig) -> Any:
    """The authors' tokenizer with `<image>` after its vocabulary, or None, with a warning, where there is none.

    tokenizer.json is taken as it is; tokenizer.model is Vicuna's, which transformers' LlamaTokenizer reads as the authors'
    slow tokenizer does. AutoTokenizer is of no use here: it goes by the authors' model type, which means another class now.
    """
    whole = (source / "tokenizer.json").is_file()
    if not whole and not (source / "tokenizer.model").is_file():
        warnings.warn(f"{source}: no tokenizer.json or tokenizer.model; no processor is written", stacklevel=3)
        return None
    if not whole and not (is_sentencepiece_available() and is_protobuf_available()):
        raise FitPruneError(f"{source}: its tokenizer.model is read with sentencepiece: pip install sentencepiece protobuf")
    options: dict[str, Any] = {"local_files_only": True, "padding_side": "left"}
    settings = source / "tokenizer_config.json"
    # The slow tokenizer puts a BOS first unless told otherwise, transformers' does so only where it is told to.
    bos = read_json(settings).get("add_bos_token", True) if settings.is_file() else True
    try:
        if whole:
            tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(source, **options)
        else:
            tokenizer = LlamaTokenizer.from_pretrained(source, add_bos_token=bos, **options)
    except Exception as error:  # a damaged file raises whatever its parser does
        raise FitPruneError(f"{source}: its tokenizer cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    place = config.image_token_id
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        # A tokenizer may know fewer tokens than the embedding has rows; the ids between are filled with names never used.
        unused = [f"<unused{number}>" for number in range(len(tokenizer), place)]
        tokens = [AddedToken(token, special=True, normalized=False) for token in (*unused, IMAGE_TOKEN)]
        tokenizer.add_tokens(tokens, special_tokens=True)
    found = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if found != place:
        raise FitPruneError(f"{source}: its tokenizer gives {IMAGE_TOKEN} the id {found}; config.json's vocab_size is {place}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer
