"""A forward over newly generated tokens after a pruned prefill, where each layer's KV cache has a length of its own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fitprune.engine.context import Layer, RunContext
from fitprune.engine.masks import causal_mask
from fitprune.interface.layout import Layout
from fitprune.models.execution import moved


@dataclass
class CacheState:
    """What the engine knows of one KV cache.

    Attributes:
        layouts: per layer, the layout of the prompt as it entered the layer.
        seen: tokens of the unpruned sequence so far, padding counted.
        visual: whether the prompt had visual tokens.
        repacked: whether position ids were numbered anew after each cut. Then those of a layer are smaller than in the unpruned
            sequence by the tokens that had left before it (`Layout.removed`).
    """

    layouts: list[Layout]
    seen: int
    visual: bool
    repacked: bool


class Decode:
    """A forward over newly generated tokens, after a pruned prefill."""

    def __init__(self, context: RunContext, state: CacheState, cache: Any, length: int) -> None:
        self.context, self.state, self.cache = context, state, cache
        # Read before the layers append to it: a layer holds what entered it, and all tokens decoded since.
        self.totals = [int(cache.get_seq_length(index)) + length for index in range(len(state.layouts))]
        self.masks: dict[tuple[int, int], Any] = {}
        self.embeddings: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def run(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """One layer, with the mask and the position ids of what its cache holds."""
        valid, total = self.state.layouts[at.index].valid, self.totals[at.index]
        known = (id(valid), total)
        if known not in self.masks:
            if valid is not None:
                valid = nn.functional.pad(valid.to(hidden.device), (0, total - valid.shape[1]), value=True)
            self.masks[known] = causal_mask(self.context.parts, hidden, valid, self.cache, at.index)
        return at.forward(hidden, **{**kwargs, **self._positions(at, hidden, kwargs), "attention_mask": self.masks[known]})

    def _positions(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The position ids of a layer that has fewer tokens than the first, where they are repacked."""
        first, own = self.state.layouts[0], self.state.layouts[at.index]
        if not self.state.repacked or own is first:
            return {}
        ids, gone, before = moved((kwargs["position_ids"], own.removed, first.removed), hidden.device)
        ids = ids - (gone - before)[:, None]
        if id(own) not in self.embeddings:
            self.embeddings[id(own)] = self.context.parts.decoder.rotary_emb(hidden, ids)
        return {"position_ids": ids, "position_embeddings": self.embeddings[id(own)]}
