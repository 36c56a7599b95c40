"""One decoder layer, as the runtime calls it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layer:
    """A decoder layer, its place, and its own forward."""

    index: int
    module: Any
    forward: Callable[..., Any]
