"""What pruning one model consists of: `RunContext`, a `Member` for each of its pruners, and the decoder's `Layer`s."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fitprune.engine.cuts import Cut
from fitprune.interface.gather import put
from fitprune.interface.hooks import Hooks
from fitprune.interface.layout import Layout
from fitprune.interface.trace import Trace
from fitprune.models.execution import moved
from fitprune.models.parts import ModelParts


@dataclass(frozen=True)
class RunContext:
    """One pruner on one model.

    Attributes:
        parts: of the model.
        pruner: the method.
        trace: what each prefill did.
        observed: for each of the method's `members`, the decoder layers whose attention it sees.
    """

    parts: ModelParts
    pruner: Hooks
    trace: Trace
    observed: tuple[frozenset[int], ...]

    @classmethod
    def of(cls, parts: ModelParts, pruner: Hooks, record_all: bool) -> "RunContext":
        """A run with an empty trace."""
        layers = len(parts.layers)
        observed = tuple(frozenset(member.observed_layers(layers)) for member in pruner.members)
        return cls(parts, pruner, Trace(record_all), observed)


@dataclass(frozen=True)
class Layer:
    """A decoder layer, its index, and its own forward."""

    index: int
    module: Any
    forward: Callable[..., Any]


class Member:
    """A pruner in one prefill.

    To the first pruner, all visual tokens of the prompt are there. A later one begins with those that the pruners before it
    left before the decoder: it counts them as the prompt's, and numbers them anew.

    Attributes:
        pruner: the method.
        observed: the decoder layers whose attention it sees.
        repacked: whether position ids are numbered anew after its cuts.
        memory, carried: see `VisualTokens`.
        global_index: LongTensor (batch, n): see `LayerContext.global_index`, of the tokens that it begins with.
        cut: whether it has dropped anything.
    """

    def __init__(self, pruner: Hooks, observed: frozenset[int], global_index: torch.Tensor | None) -> None:
        self.pruner, self.observed = pruner, observed
        self.repacked = pruner.positions == "repacked"
        self.memory: dict[str, object] = {}
        self.carried: dict[str, torch.Tensor] = {}
        self.global_index = global_index
        self.cut = False
        self._total: torch.Tensor | None = None
        self._totals: tuple[int, ...] = ()
        self._number: torch.Tensor | None = None

    @classmethod
    def all_of(cls, context: RunContext, global_index: torch.Tensor | None) -> list["Member"]:
        """The pruners of a run in the order in which they work: what runs in the tower comes first."""
        seen = zip(context.pruner.members, context.observed, strict=True)
        members = [cls(pruner, observed, global_index) for pruner, observed in seen]
        return sorted(members, key=lambda member: not member.pruner.changes_tower)

    def begin(self, prompt: Layout, layout: Layout, global_index: torch.Tensor | None) -> None:
        """Let the visual tokens in `layout` be all that there are, unless it is that of the `prompt`, or the pruner has begun.

        A pruner has begun when it has dropped something, and one that changes the tower has before the decoder. `global_index`
        is that of the whole prompt.
        """
        if layout is prompt or self.cut or self.pruner.changes_tower:
            return
        self._total, self._totals = layout.count, layout.counts
        number = torch.arange(layout.position.shape[1], device=layout.position.device)
        self._number = put(
            torch.full_like(layout.text_after, -1, dtype=torch.long), layout.position, number.expand_as(layout.position)
        )
        if global_index is not None:
            named = layout.original
            self.global_index = global_index.gather(1, named.clamp(min=0)).masked_fill(named < 0, -1)

    def layout(self, layout: Layout) -> Layout:
        """A layout of the sequence as this pruner sees it."""
        if self._total is None or self._number is None:
            return layout
        host = dataclasses.replace(layout.host, total=self._totals)
        return dataclasses.replace(layout, number=layout.columns(self._number), total=self._total, host=host)

    def to(self, device: torch.device) -> None:
        """Bring all that is kept to `device`."""
        self.memory, self.carried, self.global_index, self._total, self._number = moved(
            (self.memory, self.carried, self.global_index, self._total, self._number), device
        )

    def follow(self, cut: Cut) -> None:
        """Bring what stands in rows to the shorter sequence of `cut`."""
        self.carried = {name: values.gather(1, cut.rows) for name, values in self.carried.items()}
        if self._number is not None:
            self._number = self._number.gather(1, cut.rows)
            if cut.made is not None:
                at = cut.layout.position.masked_fill(~cut.made, -1)
                self._number = put(self._number, at, torch.full_like(at, -1))
