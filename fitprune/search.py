"""The published fitting rule: how many visual tokens each sample drops in each layer at one alpha."""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from fitprune.engine.patch import announce
from fitprune.errors import FitPruneError
from fitprune.fitting.prompts import Batch, Prompt, embed
from fitprune.interface.tokens import Attention, VisualTokens
from fitprune.interface.trace import Trace
from fitprune.method import cross_and_self
from fitprune.models.parts import model_parts
from fitprune.pruner import Pruner


class _Seen(Exception):
    """The last layer's attention was seen; its feed-forward network, and what follows, would change nothing."""


@dataclass
class _Everywhere(Pruner):
    """Observes every layer, and ends the forward after the last attention."""

    name: ClassVar[str] = "calibration"
    last: int = field(default=-1, init=False)

    def observed_layers(self, layers: int) -> Collection[int]:
        self.last = layers - 1
        return range(layers)


@dataclass
class Importances(_Everywhere):
    """Notes each visual token's cross and self attention in every layer, and prunes nothing.

    Attributes:
        cross, own: after a prefill, per layer a float32 (batch, n), 0 in padding places.
    """

    cross: list[torch.Tensor] = field(default_factory=list)
    own: list[torch.Tensor] = field(default_factory=list)

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> None:
        cross, own = cross_and_self(tokens, attention)
        self.cross.append(cross)
        self.own.append(own)
        if layer == self.last:
            raise _Seen


@dataclass
class Trajectory(_Everywhere):
    """Prunes each sample by the published rule at one alpha, without a budget.

    In a layer, with Wc and Ws the unpruned model's sums of cross and self: the largest set of lowest-cross tokens whose
    removal leaves at least (1-alpha)·Wc; likewise by self with Ws; their intersection goes. Where no set leaves that
    much, since what came before has already taken it, nothing goes (the authors' code then uses a stale count).

    Attributes:
        cross, own: Wc and Ws, float (batch, layers).
        dropped: after a prefill, per layer a LongTensor (batch,).
    """

    alpha: float
    cross: torch.Tensor
    own: torch.Tensor
    dropped: list[torch.Tensor] = field(default_factory=list)

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> torch.Tensor:
        cross, own = cross_and_self(tokens, attention)
        kept = _survivors(cross, own, tokens.present, self.alpha, self.cross[:, layer], self.own[:, layer])
        self.dropped.append(tokens.count - kept.sum(1))
        if layer == self.last:
            raise _Seen
        return kept


def simulate(cross: torch.Tensor, own: torch.Tensor, present: torch.Tensor, alpha: float) -> torch.Tensor:
    """`Trajectory` without running the pruned model: from the unpruned model's importances alone.

    What it leaves out: that attention is renormalised over the survivors, and that the hidden states change.

    Args:
        cross, own: float32 (batch, layers, n), of the unpruned model.
        present: bool (batch, n): which places hold a token.
        alpha: as in `drop_counts`.

    Returns:
        LongTensor (batch, layers): tokens dropped in each layer.
    """
    dropped = []
    cross_mass, own_mass = cross.sum(2), own.sum(2)
    for layer in range(cross.shape[1]):
        kept = _survivors(cross[:, layer], own[:, layer], present, alpha, cross_mass[:, layer], own_mass[:, layer])
        dropped.append(present.sum(1) - kept.sum(1))
        present = kept
    return torch.stack(dropped, 1)


def _survivors(
    cross: torch.Tensor,
    own: torch.Tensor,
    present: torch.Tensor,
    alpha: float,
    cross_mass: torch.Tensor,
    own_mass: torch.Tensor,
) -> torch.Tensor:
    """Who stays in one layer: bool (batch, n). Importances and `present` are (batch, n), the unpruned masses (batch,)."""
    share = 1.0 - alpha
    return present & ~(_lowest(cross, share * cross_mass, present) & _lowest(own, share * own_mass, present))


def _lowest(score: torch.Tensor, least: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """The largest set of lowest-scored tokens whose removal leaves a sum of at least `least` (batch,): bool (batch, n)."""
    order = score.masked_fill(~present, float("inf")).argsort(dim=1, stable=True)
    ordered = score.double().gather(1, order).masked_fill(~present.gather(1, order), 0)
    left = ordered.sum(1, keepdim=True) - ordered.cumsum(1)
    # Scores are not negative, so what is left falls from place to place. Rounding may leave the last sum a hair below 0.
    fits = (left.clamp(min=0) >= least.double()[:, None]) & present.gather(1, order)
    return torch.zeros_like(fits).scatter(1, order, fits)


def prefill(model: nn.Module, prompt: Prompt, pruner: Pruner) -> Trace:
    """Run one batch through the model's text decoder under `pruner`, as far as the last layer's attention."""
    parts = model_parts(model)
    device = next(parts.decoder.parameters()).device
    inputs = {name: value.to(device) for name, value in prompt.inputs.items()}
    with torch.no_grad(), pruner(model) as trace, contextlib.suppress(_Seen):
        announce(model, prompt.visual_mask.to(device))
        parts.decoder(**inputs, use_cache=False)
    return trace


def measure(model: nn.Module, prompt: Prompt) -> tuple[torch.Tensor, torch.Tensor, Trace]:
    """Cross and self attention of each visual token in the unpruned model, float32 (batch, layers, n), and the trace."""
    seen = Importances()
    trace = prefill(model, prompt, seen)
    return torch.stack(seen.cross, 1), torch.stack(seen.own, 1), trace


def counts(model: nn.Module, prompt: Prompt, alpha: float, cross: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """`drop_counts` of one batch whose Wc and Ws are known: LongTensor (batch, layers) on the CPU."""
    trajectory = Trajectory(alpha, cross, own)
    prefill(model, prompt, trajectory)
    dropped = torch.stack(trajectory.dropped, 1).cpu()
    # Once no sample has a visual token left, there is nothing to observe.
    return nn.functional.pad(dropped, (0, trajectory.last + 1 - dropped.shape[1]))


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
        cross, own, _ = measure(model, prompt)
        yield counts(model, prompt, alpha, cross.sum(2), own.sum(2))
