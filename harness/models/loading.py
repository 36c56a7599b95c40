"""From a name to a live model and its processor: stock classes, safetensors only, no remote code, no download."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fitprune.errors import FitPruneError
from harness.models.checkpoint import check_folder, checkpoint_folder, digest, require_model
from harness.models.registry import ModelSpec, find_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["LoadedModel", "load_model", "require_model"]


@dataclass
class LoadedModel:
    """A model ready to answer.

    Attributes:
        name: as it was asked for.
        revision: the hub commit, or for a folder the digest of its config and weights.
        model: in eval mode, on `device`.
        processor: pads on the left and has a chat template.
        spec: its registry entry.
        device: e.g. "cpu", "cuda:0".
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


def load_model(
    name: str, device: str | None = None, dtype: "torch.dtype | str | None" = None, require_weights: bool = True
) -> LoadedModel:
    """Load a model by registry name, hub id or folder.

    Args:
        device: None takes the first CUDA device when there is one, else the CPU.
        dtype: a torch dtype or its name; None is float32 on the CPU, bfloat16 on CUDA (float16 on cards without it).
        require_weights: False builds the model from its config with random weights (seed 0) when the folder has none:
            for counting FLOPs. Config and processor files are needed all the same.

    Raises FitPruneError, in one line, for anything missing or damaged.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    spec = find_model(name)
    folder = checkpoint_folder(spec)
    device = _device(device)
    kind = _dtype(dtype, device)
    with_weights = require_weights or any(folder.glob("*.safetensors"))
    if with_weights:
        check_folder(folder)
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        # The PIL image processor is the authors' and needs no torchvision: scores depend on nothing else installed.
        processor = AutoProcessor.from_pretrained(folder, backend="pil", **common)
        if with_weights:
            model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=kind, use_safetensors=True, **common)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder, **common), dtype=kind)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FitPruneError(
            f"{folder}: transformers cannot load this checkpoint: {' '.join(str(error).split())[:300]}"
        ) from error
    _prepare_processor(processor, spec)
    revision = folder.name if spec.kind == "hub" else digest(folder) if with_weights else "random"
    return LoadedModel(name, revision, model.to(device).eval(), processor, spec, device)


def _prepare_processor(processor: "ProcessorMixin", spec: ModelSpec) -> None:
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise FitPruneError(f"model '{spec.name}': its processor has no tokenizer; it is not an image-text model")
    tokenizer.padding_side = "left"  # so that every prompt ends where generation starts
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # masked out, so any token does
    if not processor.chat_template:
        processor.chat_template = spec.chat_template


def _device(device: str | None) -> str:
    import torch

    if device is None:
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise FitPruneError(f"unknown device '{device}'; write cpu or cuda:0") from None
    if parsed.type == "cuda":
        count = torch.cuda.device_count()
        if (parsed.index or 0) >= count:
            raise FitPruneError(f"device '{device}' is not here: this machine has {count} CUDA devices; use --device cpu")
        return f"cuda:{parsed.index or 0}"
    return device


def _dtype(dtype: "torch.dtype | str | None", device: str) -> "torch.dtype":
    import torch

    if dtype is None:
        if not device.startswith("cuda"):
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise FitPruneError(f"unknown dtype '{dtype}'; write float32, bfloat16 or float16")
    return found
