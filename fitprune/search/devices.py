"""The device on which a module computes, offloaded weights included."""

from typing import Any

import torch
from torch import nn


def execution_device(module: nn.Module) -> torch.device:
    """The device of the first of a module's weights when it runs.

    Accelerate's hooks keep offloaded weights elsewhere (as parameters on "meta") and name the device that they bring them to.
    """
    for part in module.modules():
        hook: Any = getattr(part, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            device = getattr(each, "execution_device", None)
            if device is not None and getattr(each, "offload", False):
                return torch.device(device)
        for parameter in part.parameters(recurse=False):
            if not parameter.is_meta:
                return parameter.device
    return torch.device("cpu")
