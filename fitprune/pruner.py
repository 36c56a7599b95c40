"""The interface of every pruning method."""

import dataclasses
from abc import ABC
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import nn

from fitprune.anatomy import anatomy
from fitprune.errors import BudgetError, FitPruneError
from fitprune.runtime import pruning
from fitprune.trace import Trace
from fitprune.view import Attention, VisualTokens

NEWLINES = ("kept", "pruned")


@dataclasses.dataclass
class Pruner(ABC):
    """A pruning method with its parameters, applied to a live model as a context manager.

        with MyPruner(...)(model) as trace:
            model.generate(**inputs)

    A method overrides one or both of `before_layer` and `after_attention`. Both are called during the prefill only, with
    the whole batch at once, and answer which of the visual tokens present stay. Survivors keep their position ids.
    Pruner objects hold parameters alone; what a prefill must remember goes into `tokens.memory`, so one object may serve
    several models and threads at once.

    Attributes:
        newlines: tiled models (LLaVA-NeXT, LLaVA-OneVision) put a learnt newline token after each row of patches. "kept":
            these are no visual tokens to the method, which neither sees nor drops them, and `Trace.kept` does not count
            them. "pruned": they are visual tokens like all others. Other models have none.
    """

    name: ClassVar[str]
    newlines: str = dataclasses.field(default="kept", kw_only=True)

    def check(self, model: nn.Module) -> None:  # noqa: B027 - most methods run on every model
        """Raise a `FitPruneError` if the method cannot be applied to `model`; called on entering the context."""

    def observed_layers(self, layers: int) -> Collection[int]:
        """The layers whose attention `after_attention` wants to see, of a decoder with `layers` layers."""
        return ()

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        """Which visual tokens enter layer `layer`: bool (batch, n), or None for all of them."""
        return None

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> torch.Tensor | None:
        """Which visual tokens stay after the attention of an observed layer: bool (batch, n), or None for all.

        The others take no part in that layer's output projection, residual and feed-forward network.
        """
        return None

    def params(self) -> dict[str, Any]:
        """The parameters, as JSON-able values, for a result's record."""
        return dataclasses.asdict(self)

    @classmethod
    def for_reduction(
        cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None, **options: Any
    ) -> "Pruner":
        """The method with its free parameter solved so that it saves `reduction` of the visual tokens' decoder FLOPs.

        Args:
            model_config: the vision-language model's transformers configuration.
            reduction: share of the visual tokens' decoder FLOPs to save, in (0, 1), the method's own scoring included.
            visual_tokens: visual tokens of a prompt; derived from the configuration where it is fixed.
            options: the method's other parameters.

        Raises:
            BudgetError: the method cannot reach it; the message says what it can reach.
        """
        raise BudgetError(f"{cls.__name__} has no free parameter to solve for a budget; it saves what it saves.")

    @contextmanager
    def __call__(self, model: nn.Module) -> Iterator[Trace]:
        """Prune `model` inside the context. The model is as it was on exit, also after an error.

        Any batch size, padding, beams or sampling. Text-only prompts pass untouched. The context also holds for threads
        started inside it; two threads may each hold a context of their own on one model.

        Raises:
            UnsupportedModel: a model, or (from its forward) a way of calling it, that cannot be pruned correctly.
        """
        anatomy(model)
        if self.newlines not in NEWLINES:
            raise FitPruneError(f"newlines must be one of {', '.join(NEWLINES)}, not {self.newlines!r}.")
        self.check(model)
        with pruning(model, self) as trace:
            yield trace
