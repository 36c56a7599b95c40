"""Dense: a pruner that prunes nothing, which runs the dense model through the code of all other pruners."""

from dataclasses import dataclass
from typing import ClassVar

from fitprune import Pruner


@dataclass
class Dense(Pruner):
    """The dense model: every visual token stays."""

    name: ClassVar[str] = "dense"
