"""A look into one layer's attention: queries and keys go to the pruner, and the rows that it drops leave before o_proj."""

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fitprune.engine.sequence import take
from fitprune.engine.undo import beside
from fitprune.interface.tokens import Attention

IMPLEMENTATION = "fitprune"

# The attention call under observation in this thread: an `Observation`, or None.
_thread = threading.local()


@dataclass
class Observation:
    """One attention call under observation, and what came of it.

    Attributes:
        show: called with the layer's attention; answers which rows survive, LongTensor (batch, T'), or None for all.
        rows: that answer.
        shown: whether the attention came by.
    """

    show: Callable[[Attention], torch.Tensor | None]
    rows: torch.Tensor | None = None
    shown: bool = False

    def __enter__(self) -> "Observation":
        _thread.observation = self
        return self

    def __exit__(self, *_: object) -> None:
        _thread.observation = None


def observing_config(config: Any) -> Any:
    """A shallow copy of an attention module's configuration that routes through `observed_attention`."""
    view = copy.copy(config)
    view._attn_implementation = IMPLEMENTATION
    view._observed_config = config
    return view


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
    observation = getattr(_thread, "observation", None)
    if observation is not None:
        scaling = kwargs.get("scaling") or module.scaling
        observation.rows, observation.shown = observation.show(Attention(query, key, scaling)), True
    implementation = config._attn_implementation
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, beside(module, "eager_attention_forward"))
    return attend(_Unobserved(module, config), query, key, value, attention_mask, **kwargs)


AttentionInterface.register(IMPLEMENTATION, observed_attention)


def gather_survivors(module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
    """Before the output projection: only rows that survive go on."""
    observation = getattr(_thread, "observation", None)
    if observation is None or observation.rows is None:
        return None
    return (take(args[0], observation.rows),)
