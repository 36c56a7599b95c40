"""`load_model` and `load_outline`: from a name to a live model and its processor, or to all of it but the weights.

Stock classes, safetensors only, no remote code, no download.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitprune.errors import FitPruneError
from harness.heap import keep_freed_memory
from harness.models.chat import question_reader, text_tower
from harness.models.checkpoint import check_folder, checkpoint_folder, digest, require_model, weight_files
from harness.models.devices import check_device, choose_device, choose_dtype, placement
from harness.models.families.templates import VICUNA
from harness.models.families.unpadding import keep_padding
from harness.models.family_names import choose_model
from harness.models.json_files import read_json
from harness.models.processors import load_processor
from harness.models.registry import find_model
from harness.models.shipped import known_family, read_config, transformers_config
from harness.models.spec import ModelSpec
from harness.models.tensors import parameters

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

STOCK: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Options of every `from_pretrained`."""
__all__ = ["LoadedModel", "ModelOutline", "load_model", "load_outline", "require_model"]


@dataclass
class LoadedModel:
    """A model ready to answer.

    Attributes:
        name: as it was asked for; for a family's name, that of the model that was taken.
        revision: the hub commit, or for a folder the digest of its config and weights.
        model: in eval mode, on `device`, or spread over several.
        processor: pads on the left and has a chat template.
        spec: its registry entry.
        device: where its inputs go, e.g. "cpu", "cuda:0".
    """

    name: str
    revision: str
    model: "PreTrainedModel"
    processor: "ProcessorMixin"
    spec: ModelSpec
    device: str

    @property
    def dtype(self) -> "torch.dtype":
        return self.model.dtype

    @property
    def config(self) -> Any:
        """transformers' configuration."""
        return self.model.config


@dataclass(frozen=True)
class ModelOutline:
    """A model but for its weights: enough to make its inputs and to count what they cost.

    Attributes:
        config: transformers' configuration.
        processor: as that of a `LoadedModel`.
        device: where inputs go.
    """

    name: str
    config: Any
    processor: "ProcessorMixin"
    device: str = "cpu"

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        return torch.float32


def load_model(
    name: str, device: str | None = None, dtype: "torch.dtype | str | None" = None, require_weights: bool = True
) -> LoadedModel:
    """Load a model by registry name, hub id or folder; a family's name takes a model of it that is here, with a warning
    that says which.

    The model is made without memory and each tensor is read once, straight to its device and dtype: on the CPU a
    checkpoint in the asked dtype is mapped, not copied, and one in another dtype takes its weights' size once.

    Args:
        device: "cpu", "cuda:0", or "auto", which spreads the layers over all GPUs and then the CPU (accelerate's
            `device_map="auto"`). None takes the first CUDA device when there is one and the weights fit into what is free
            of it, spreads them when they do not, and takes the CPU where there is no GPU.
        dtype: a torch dtype or its name; None is float32 on the CPU, bfloat16 on CUDA (float16 on cards without it).
        require_weights: False builds the model from its config with random weights (seed 0) when the folder has none:
            for counting FLOPs. Config and processor files are needed all the same.

    Raises FitPruneError, in one line, for anything missing or damaged, and for a GPU that is too small.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from fitprune.models.execution import execution_device
    from fitprune.models.reader import give_reader

    check_device(device)
    chosen = choose_model(name)
    if chosen.note:
        warnings.warn(chosen.note, stacklevel=2)
    name = chosen.name
    spec = find_model(name)
    folder = checkpoint_folder(spec)
    kind = choose_dtype(dtype, device)
    with_weights = require_weights or any(folder.glob("*.safetensors"))
    size = 0
    if with_weights:
        check_folder(folder)
        size = sum(parameters(path) for path in weight_files(folder)) * kind.itemsize
    device = choose_device(device, size)
    if device == "cpu":
        keep_freed_memory()
    config = _config_of(spec, folder)
    known_family(config.get("model_type"))
    model: Any
    try:
        processor = load_processor(folder, str(config.get("model_type")), STOCK, spec.variant)
        if with_weights:
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=kind, use_safetensors=True, device_map=placement(device), output_loading_info=True, **STOCK
            )
            model, report = loaded
            _check_complete(folder, report)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder, **STOCK), dtype=kind)
            model = model.to(device)
    except FitPruneError:
        raise
    except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise FitPruneError(
            f"{folder}: transformers cannot load this checkpoint: {' '.join(str(error).split())[:300]}"
        ) from error
    _prepare_processor(processor, spec, config)
    if spec.variant:
        keep_padding(model)
    where = str(execution_device(model.get_input_embeddings())) if device == "auto" else device
    give_reader(model, question_reader(processor, text_tower(spec, kind, where)))
    return LoadedModel(name, _revision(spec, folder, with_weights), model.eval(), processor, spec, where)


def load_processor_of(name: str) -> "ProcessorMixin":
    """The processor alone, as `load_model` prepares it. Raises FitPruneError for a model that is not there."""
    spec = find_model(choose_model(name).name)
    folder = checkpoint_folder(spec)
    config = _config_of(spec, folder)
    known_family(config.get("model_type"))
    processor = load_processor(folder, str(config.get("model_type")), STOCK, spec.variant)
    _prepare_processor(processor, spec, config)
    return processor


def load_outline(name: str) -> ModelOutline:
    """The model without its weights. Raises FitPruneError as `load_model` does for a model that is not there."""
    return ModelOutline(name, transformers_config(find_model(choose_model(name).name)), load_processor_of(name))


def _config_of(spec: ModelSpec, folder: Path) -> Mapping[str, Any]:
    """The checkpoint's own configuration, also where another ships. Raises FitPruneError for a variant that it cannot have."""
    return read_config(replace(spec, kind="folder", source=str(folder))) if spec.variant else read_json(folder / "config.json")


def _check_complete(folder: Path, report: Mapping[str, Any]) -> None:
    """Raise FitPruneError when part of the model was in no file: transformers would leave it random."""
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise FitPruneError(
            f"{folder}: the weights lack {len(missing)} of the model's tensors, e.g. {missing[0]}; "
            "download the checkpoint again"
        )


def _revision(spec: ModelSpec, folder: Path, with_weights: bool) -> str:
    if spec.kind == "hub":
        return folder.name
    return digest(folder) if with_weights else "random"


def _prepare_processor(processor: "ProcessorMixin", spec: ModelSpec, config: Mapping[str, Any]) -> None:
    """Pad on the left; the sizes are the model's; a pad token and a chat template where there is none."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise FitPruneError(f"model '{spec.name}': its processor has no tokenizer; it is not an image-text model")
    meant = config.get("image_token_id", config.get("image_token_index"))
    # Of Gemma 3 the processor's own id is that of the token that stands for an image before its text is expanded; of InternVL
    # there are those of the tokens around an image, too.
    given = (getattr(processor, "image_token_ids", None) or [getattr(processor, "image_token_id", None)])[0]
    if meant is not None and given is not None and meant != given:
        raise FitPruneError(
            f"model '{spec.name}': its config.json has {meant} for image tokens, its tokenizer {given} "
            f"({getattr(processor, 'image_token', '')!r}); one of them is another checkpoint's: correct config.json"
        )
    tokenizer.padding_side = "left"  # so that every prompt ends where generation starts
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # masked out, so any token does
    family = known_family(config.get("model_type"))
    for setting, value in family.processor(config).items() if family else ():
        setattr(processor, setting, value)
    if not processor.chat_template:
        own = _tokenizers_template(processor) if not spec.chat_template else None
        processor.chat_template = spec.chat_template or own or (family.chat_template if family else VICUNA)


def _tokenizers_template(processor: "ProcessorMixin") -> str | None:
    """The chat template that a checkpoint keeps with its tokenizer, as training code saves it; None where there is none.

    One that gives an image no place is a language model's: it is left out, with a warning.
    """
    template = getattr(processor.tokenizer, "chat_template", None)
    if not isinstance(template, str):
        return None
    probe: list[Any] = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    try:
        said = str(processor.apply_chat_template(probe, chat_template=template, add_generation_prompt=True))
    except Exception:  # a template is a program of its author's: it may fail in any way
        said = ""
    if said.count(getattr(processor, "image_token", "<image>")) == 1 and "what?" in said:
        return template
    warnings.warn("the tokenizer's chat template has no place for an image; the model family's is taken", stacklevel=4)
    return None
