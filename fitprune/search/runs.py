"""`drop_counts`: runs a model to see how many visual tokens each sample drops in each layer at one alpha."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import nn

from fitprune.engine.patch import announce
from fitprune.engine.undo import Attachments
from fitprune.errors import FitPruneError
from fitprune.interface.tokens import Attention, VisualTokens
from fitprune.interface.trace import Trace
from fitprune.models.execution import execution_device, moved
from fitprune.models.parts import model_parts
from fitprune.pruner import Pruner
from fitprune.scoring.importance import cross_and_self
from fitprune.search.prompts import Batch, Prompt, embed
from fitprune.search.rule import survivors


class _LastLayerSeen(Exception):
    """Raised after the last layer's attention: the feed-forward network, and what follows, would change nothing."""


@dataclass
class ObserveAllLayers(Pruner):
    """Observes every layer."""

    name: ClassVar[str] = "calibration"
    last: int = field(default=-1, init=False)

    def observed_layers(self, layers: int) -> range:
        self.last = layers - 1
        return range(layers)


@dataclass
class Importances(ObserveAllLayers):
    """Notes each visual token's cross and self attention in every layer, and prunes nothing.

    Attributes:
        cross, own: after a prefill, per layer a float32 (batch, n), 0 in padding places.
        hidden: (batch, T, hidden_size), what left the first of several layers.
    """

    cross: list[torch.Tensor] = field(default_factory=list)
    own: list[torch.Tensor] = field(default_factory=list)
    hidden: torch.Tensor = field(default_factory=lambda: torch.empty(0), init=False)

    def before_layer(self, layer: int, tokens: VisualTokens) -> None:
        if layer == 1:
            self.hidden = tokens.hidden

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> None:
        cross, own = cross_and_self(tokens, attention)
        self.cross.append(cross)
        self.own.append(own)
        if layer == self.last:
            raise _LastLayerSeen


@dataclass
class Trajectory(ObserveAllLayers):
    """Prunes each sample by the published rule at one alpha, without a budget.

    In a layer, with Wc and Ws the unpruned model's sums of cross and self: the largest set of lowest-cross tokens whose
    removal leaves at least (1-alpha)·Wc; likewise by self with Ws; their intersection goes. Where no set leaves that
    much, since what came before has already taken it, nothing goes (the authors' code then uses a stale count).

    It is run on what the unpruned model's first layer gave (`Prompt.after_first`), before which nothing is pruned.

    Attributes:
        cross, own: Wc and Ws, float (batch, layers).
        first: cross and self in the first layer, float32 (batch, n).
        dropped: after a prefill, per layer a LongTensor (batch,).
    """

    alpha: float
    cross: torch.Tensor
    own: torch.Tensor
    first: tuple[torch.Tensor, torch.Tensor]
    dropped: list[torch.Tensor] = field(default_factory=list)

    def observed_layers(self, layers: int) -> range:
        return super().observed_layers(layers)[1:]

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        return None if layer else self._survivors(layer, tokens, *moved(self.first, tokens.present.device))

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> torch.Tensor:
        return self._survivors(layer, tokens, *cross_and_self(tokens, attention))

    def _survivors(self, layer: int, tokens: VisualTokens, cross: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        # Layers may lie on several devices.
        masses = (mass[:, layer].to(cross.device) for mass in (self.cross, self.own))
        kept = survivors(cross, own, tokens.present, self.alpha, *masses)
        self.dropped.append(tokens.count - kept.sum(1))
        if layer == self.last:
            raise _LastLayerSeen
        return kept


def prefill(model: nn.Module, prompt: Prompt, pruner: Pruner) -> Trace:
    """Run one batch through the model's text decoder under `pruner`, as far as the last layer's attention."""
    parts = model_parts(model)
    device = execution_device(parts.decoder)
    inputs = {name: value.to(device) for name, value in prompt.inputs.items()}
    with torch.no_grad(), pruner(model) as trace, contextlib.suppress(_LastLayerSeen):
        announce(model, prompt.visual_mask.to(device), prompt.newline_mask.to(device))
        parts.decoder(**inputs, use_cache=False)
    return trace


def measure(model: nn.Module, prompt: Prompt) -> tuple[torch.Tensor, torch.Tensor, Trace, Prompt]:
    """Cross and self attention of each visual token in the unpruned model, float32 (batch, layers, n), the trace, and the
    prompt `after_first`."""
    seen = Importances()
    trace = prefill(model, prompt, seen)
    return _stacked(seen.cross), _stacked(seen.own), trace, prompt.after_first(seen.hidden) if seen.last else prompt


def counts(model: nn.Module, prompt: Prompt, alpha: float, cross: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """`drop_counts` of one batch as `measure` gave it: LongTensor (batch, layers) on the CPU."""
    parts = model_parts(model)
    device, known = execution_device(parts.decoder), Attachments()
    first = cross[:, 0].to(device), own[:, 0].to(device)
    trajectory = Trajectory(alpha, cross.sum(2).to(device), own.sum(2).to(device), first)
    known.set(cast(nn.Module, parts.layers[0]), "forward", lambda hidden, *_, **__: hidden)
    try:
        prefill(model, prompt, trajectory)
    finally:
        known.remove()
    dropped = _stacked(trajectory.dropped).cpu()
    # Once no sample has a visual token left, there is nothing to observe.
    return nn.functional.pad(dropped, (0, trajectory.last + 1 - dropped.shape[1]))


def _stacked(layers: list[torch.Tensor]) -> torch.Tensor:
    """Per-layer tensors (batch, …) as one (batch, layers, …) on the first layer's device."""
    return torch.stack([layer.to(layers[0].device) for layer in layers], 1)


def drop_counts(model: nn.Module, batches: Iterable[Batch], alpha: float) -> torch.Tensor:
    """The published fitting rule at one alpha, without a budget (arXiv 2409.10197, authors' code).

    Args:
        model: a vision-language model.
        batches: processor outputs (dicts of tensors), any batch size and padding.
        alpha: in [0, 1]; 0 drops nothing that is attended to, 1 drops everything in the first layer.

    Returns:
        LongTensor (samples, layers): visual tokens that each sample drops in each layer. See `Trajectory` for the rule
        and its one deviation.
    """
    if not 0 <= alpha <= 1:
        raise FitPruneError(f"alpha must be between 0 and 1, not {alpha}.")
    return torch.cat(list(_each(model, batches, alpha)))


def _each(model: nn.Module, batches: Iterable[Batch], alpha: float) -> Iterator[torch.Tensor]:
    for batch in batches:
        prompt = embed(model, batch)
        cross, own, _, entered = measure(model, prompt)
        yield counts(model, entered, alpha, cross, own)
