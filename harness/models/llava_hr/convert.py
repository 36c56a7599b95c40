"""From the authors' checkpoint layout to ours: every tensor accounted for, or nothing written."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import GenerationConfig

from fitprune.errors import FitPruneError
from harness.models.llava_hr.authors_config import read_config
from harness.models.llava_hr.authors_tokenizer import read_tokenizer
from harness.models.llava_hr.configuration import LlavaHrConfig
from harness.models.llava_hr.image_processing import LlavaHrImageProcessor
from harness.models.llava_hr.modeling import LlavaHrForConditionalGeneration
from harness.models.llava_hr.names import is_ignored, to_authors, to_ours
from harness.models.llava_hr.processing import LlavaHrProcessor
from harness.models.llava_hr.source import find_shards, read_shard

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
    tokenizer = read_tokenizer(source, config.image_token_id)
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
        storages: set[int] = set()
        for name, tensor in read_shard(path).items():
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
            storage = tensor.untyped_storage()
            # safetensors writes no two tensors of one storage; what has one to itself stays mapped from the disk.
            shared = storage.nbytes() != tensor.nbytes or storage.data_ptr() in storages
            storages.add(storage.data_ptr())
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
