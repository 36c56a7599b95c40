"""What one pruner's work on one model consists of: `RunContext`; and a decoder layer as the engine calls it: `Layer`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fitprune.interface.hooks import Hooks
from fitprune.interface.trace import Trace
from fitprune.models.parts import ModelParts


@dataclass(frozen=True)
class RunContext:
    """One pruner on one model.

    Attributes:
        parts: of the model.
        pruner: the method.
        trace: what each prefill did.
        observed: the decoder layers whose attention the method sees.
    """

    parts: ModelParts
    pruner: Hooks
    trace: Trace
    observed: frozenset[int]

    @classmethod
    def of(cls, parts: ModelParts, pruner: Hooks, record_all: bool) -> "RunContext":
        """A run with an empty trace."""
        return cls(parts, pruner, Trace(record_all), frozenset(pruner.observed_layers(len(parts.layers))))


@dataclass(frozen=True)
class Layer:
    """A decoder layer, its index, and its own forward."""

    index: int
    module: Any
    forward: Callable[..., Any]
