"""`Observation`: the pruner sees queries and keys of one layer's attention; rows that it drops leave before o_proj."""

import copy
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fitprune.interface.attention import Attention
from fitprune.models.parts import module_global

IMPLEMENTATION = "fitprune"

# Takes the rows that survive of (batch, T, d).
Shorten = Callable[[torch.Tensor], torch.Tensor]

# The attention call under observation in this execution context.
_observed: ContextVar["Observation | None"] = ContextVar("fitprune_observed", default=None)


@dataclass
class Observation:
    """One attention call under observation, and the pruner's answer to it.

    Attributes:
        show: called with the layer's attention; answers what takes the rows that survive, or None for all.
        shorten: that answer, until it has been carried out.
        shown: whether the attention was shown.
        last_row: the last query alone attends, and its row stands for all; `shorten` must leave no other.
    """

    show: Callable[[Attention], Shorten | None]
    shorten: Shorten | None = None
    shown: bool = False
    last_row: bool = False
    _before: "Token[Observation | None] | None" = field(default=None, repr=False)

    def __enter__(self) -> "Observation":
        self._before = _observed.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._before is not None
        _observed.reset(self._before)
        self._before = None


def observing_config(config: Any) -> Any:
    """A shallow copy of an attention module's configuration that routes through `observed_attention`; one that does, itself."""
    if hasattr(config, "_observed_config"):
        return config
    routed = copy.copy(config)
    routed._attn_implementation = IMPLEMENTATION
    routed._observed_config = config
    return routed


class _Unobserved:
    """An attention module as it was: its own attributes, with the configuration that it had."""

    def __init__(self, module: nn.Module, config: Any) -> None:
        self.module, self.config = module, config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def observed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The attention function of a patched module: the one it was set to, after showing queries and keys to the pruner."""
    config = module.config._observed_config
    observation = _observed.get()
    if observation is not None:
        scaling = kwargs.get("scaling") or module.scaling
        observation.shorten, observation.shown = observation.show(Attention(query, key, scaling)), True
    implementation = config._attn_implementation
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, module_global(module, "eager_attention_forward"))
    if observation is not None and observation.last_row:
        mask = None if attention_mask is None else attention_mask[..., -1:, :]
        row, weights = attend(_Unobserved(module, config), query[:, :, -1:], key, value, mask, **kwargs)
        return row.expand(-1, query.shape[2], -1, -1), weights
    return attend(_Unobserved(module, config), query, key, value, attention_mask, **kwargs)


AttentionInterface.register(IMPLEMENTATION, observed_attention)


def gather_survivors(module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
    """Before the output projection: only rows that survive go on.

    An adapter may have put a module around the projection; then both bring this, and the outer one does it.
    """
    observation = _observed.get()
    if observation is None or observation.shorten is None:
        return None
    shorten, observation.shorten = observation.shorten, None
    return (shorten(args[0]),)
