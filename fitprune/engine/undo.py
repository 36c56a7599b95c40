"""Attributes of a live module that are set for a while."""

from contextlib import ExitStack
from typing import Any

from torch import nn


def set_attribute(undo: ExitStack, module: nn.Module, name: str, value: Any) -> None:
    """Set an instance attribute until `undo` closes: then it is as before, or gone where the instance had none."""
    if name in vars(module):
        undo.callback(setattr, module, name, vars(module)[name])
    else:
        undo.callback(delattr, module, name)
    setattr(module, name, value)
