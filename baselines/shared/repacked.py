"""The base class of methods whose authors number position ids anew after a cut."""

from dataclasses import dataclass, field

from fitprune import Pruner


@dataclass
class Repacked(Pruner):
    """A pruner whose default is `positions="repacked"`."""

    positions: str = field(default="repacked", kw_only=True)
