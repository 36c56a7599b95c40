"""The base classes of methods whose authors number position ids anew after a cut."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fitprune import Pruner
from fitprune.models.parts import has_axes


@dataclass
class Repacked(Pruner):
    """A pruner whose default is `positions="repacked"`."""

    positions: str = field(default="repacked", kw_only=True)


@dataclass
class RepackedWherePossible(Repacked):
    """One that keeps the ids of models whose position ids, on three axes, cannot be numbered anew, and says so."""

    @classmethod
    def own_positions(cls, model_config: Any) -> str:
        return "kept" if has_axes(model_config) else super().own_positions(model_config)

    def notes(self, model: nn.Module) -> list[str]:
        kept = has_axes(model.config) and self.positions == "kept"
        return ["position ids are kept: this model's, on three axes, cannot be numbered anew as the authors do"] if kept else []
