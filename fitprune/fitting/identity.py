"""`model_identity`: what tells one model from another where statistics are kept."""

import importlib.metadata
import json
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from fitprune.fitting.tensor_store import digest

PACKAGE = "fitprune-bench"

# Elements of each tensor that are read.
SAMPLE = 256


def model_identity(model: nn.Module) -> str:
    """32 hex digits of a model's configuration, all its weights and buffers, and this package's version.

    Of each parameter and buffer, adapters included, its name, shape, type and some 256 evenly spread elements count: it
    takes 15 to 30 µs a tensor on a CPU, whatever its size.
    """
    config: dict[str, Any] = cast(Any, model.config).to_dict()
    config = {name: value for name, value in config.items() if name not in ("_name_or_path", "transformers_version")}
    shapes, samples = [], {}
    for name, value in _tensors(model):
        shapes.append(f"{name} {value.dtype} {tuple(value.shape)}")
        if not value.is_meta:
            samples[name] = _sample(value)
    version = importlib.metadata.version(PACKAGE)
    return digest(version, json.dumps(config, sort_keys=True, default=str), "\n".join(shapes), samples)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter, buffer and packed weight of a model, by name; offloaded ones from where accelerate keeps them."""
    for prefix, module in model.named_modules():
        tensors: dict[str, Any] = {**module._parameters, **module._buffers}
        if not tensors and not module._modules:
            # Quantised layers keep their weights packed, where only their state names them.
            tensors = _flat(module.state_dict())
        for name, value in tensors.items():
            if isinstance(value, torch.Tensor):
                yield f"{prefix}.{name}", _offloaded(module, name, value) if value.is_meta else value


def _flat(state: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in state.items():
        parts = value if isinstance(value, tuple | list) else [value]
        flat.update({f"{name}.{number}": part for number, part in enumerate(parts)})
    return flat


def _offloaded(module: nn.Module, name: str, value: torch.Tensor) -> torch.Tensor:
    """A weight on "meta" as accelerate's hooks keep it; the empty one where no hook does."""
    hook = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", (hook,)):
        weights = getattr(each, "weights_map", None)
        if weights is not None and name in weights:
            return weights[name]
    return value


@torch.no_grad()
def _sample(value: torch.Tensor) -> torch.Tensor:
    """Evenly spread elements of a tensor, on the CPU."""
    flat = (value.dequantize() if value.is_quantized else value.detach()).reshape(-1)
    # The step is odd, so that in a matrix of even width it runs through all columns.
    return flat[:: -(-len(flat) // SAMPLE) | 1].cpu() if len(flat) else flat.cpu()
