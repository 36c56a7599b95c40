"""Where and in which precision a model's modules run: devices, offloaded weights, autocast."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

# Whether autocast is on for the model, while it is off for a pruner's own arithmetic.
_autocast: ContextVar[bool] = ContextVar("fitprune_autocast", default=False)


def execution_device(module: nn.Module) -> torch.device:
    """The device of the first of a module's weights when it runs.

    Accelerate's hooks keep offloaded weights elsewhere (as parameters on "meta") and name the device that they bring them to.
    """
    device = torch.device("cpu")
    for part in module.modules():
        hook: Any = getattr(part, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            there = getattr(each, "execution_device", None)
            if there is not None and getattr(each, "offload", False):
                return torch.device(there)
        for parameter in part.parameters(recurse=False):
            if not parameter.is_meta:
                return parameter.device
            device = parameter.device
    return device


def floating_type(module: nn.Module) -> torch.dtype:
    """The type of the first of a module's weights that are not packed integers; torch's default where all are."""
    types = (parameter.dtype for parameter in module.parameters())
    return next((dtype for dtype in types if dtype.is_floating_point), torch.get_default_dtype())


def moved(value: Any, device: torch.device) -> Any:
    """A tensor, or nested dictionaries, lists and tuples, with every tensor on `device`; anything else stays as it is."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: moved(entry, device) for name, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(moved(entry, device) for entry in value)
    return value


def run_module(module: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """A module of the model on `states`, where and as the model runs it; the result is on the device of `states`."""
    with model_precision(states):
        return module(states.to(execution_device(module))).to(states.device)


@contextmanager
def own_precision(states: torch.Tensor) -> Iterator[None]:
    """A pruner's own arithmetic beside `states`, in the types of its tensors: autocast would round scores to half precision."""
    kind = states.device.type
    if not torch.is_autocast_enabled(kind):
        yield
        return
    outside = _autocast.set(True)
    try:
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        _autocast.reset(outside)


@contextmanager
def model_precision(states: torch.Tensor) -> Iterator[None]:
    """Inside `own_precision`: modules of the model run under autocast where the model does."""
    if not _autocast.get():
        yield
        return
    kind = states.device.type
    with torch.autocast(kind, dtype=torch.get_autocast_dtype(kind)):
        yield
