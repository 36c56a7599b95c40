"""Attributes of a live module that are set for a while."""

from collections.abc import Callable
from typing import Any

from torch import nn


def set_attribute(module: nn.Module, name: str, value: Any) -> Callable[[], None]:
    """Set an instance attribute; returns what puts it back, or takes it off where the instance had none."""
    had, before = name in vars(module), vars(module).get(name)
    setattr(module, name, value)
    return (lambda: setattr(module, name, before)) if had else (lambda: delattr(module, name))
