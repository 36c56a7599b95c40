"""Attributes of a live module that are set for a while; functions of the file that its class is from."""

from collections.abc import Callable
from typing import Any

from torch import nn


def set_attribute(module: nn.Module, name: str, value: Any) -> Callable[[], None]:
    """Set an instance attribute; returns what puts it back, or takes it off where the instance had none."""
    had, before = name in vars(module), vars(module).get(name)
    setattr(module, name, value)
    return (lambda: setattr(module, name, before)) if had else (lambda: delattr(module, name))


def beside(module: nn.Module, name: str) -> Any:
    """What is called `name` in the file that the module's class is from; None where there is none.

    Found through the class, since the file itself may have been taken out of `sys.modules` since.
    """
    return type(module).__init__.__globals__.get(name)
