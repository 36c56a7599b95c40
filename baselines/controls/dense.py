"""The dense model: a pruner that prunes nothing, so that it goes through the same code as all others."""

from dataclasses import dataclass
from typing import ClassVar

from fitprune import Pruner


@dataclass
class Dense(Pruner):
    """Keeps every visual token."""

    name: ClassVar[str] = "dense"
