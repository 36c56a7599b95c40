"""A forward over newly generated tokens, after a pruned prefill: each layer's cache has a length and a mask of its own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fitprune.engine.layer import Layer
from fitprune.engine.sequence import causal_mask

if TYPE_CHECKING:
    from fitprune.engine.session import Session


@dataclass
class CacheState:
    """What the runtime knows of one KV cache: which places of each layer are real, and how long the prompt was.

    Attributes:
        valid: per layer (batch, entered) bool, or None where all that entered the layer is real.
        entered: per layer, the prompt tokens that entered it (padding counted).
        seen: tokens of the unpruned sequence so far, padding counted.
        visual: whether the prompt had visual tokens.
        shift: per layer (batch,), under repacked positions: by how much they are smaller than in the unpruned sequence, the
            tokens that did not enter the layer; None where positions are kept.
    """

    valid: list[torch.Tensor | None]
    entered: list[int]
    seen: int
    visual: bool
    shift: list[torch.Tensor | None]


class Decode:
    """A forward over newly generated tokens, after a pruned prefill."""

    def __init__(self, session: "Session", state: CacheState, cache: Any, length: int) -> None:
        self.session, self.state, self.length = session, state, length
        # Read before the layers append to it: layer l holds what entered it, and all tokens decoded since.
        self.past = [int(cache.get_seq_length(index)) for index in range(len(state.entered))]
        self.masks: dict[tuple[int, int], Any] = {}
        self.embeddings: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def run(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        valid, total = self.state.valid[at.index], self.past[at.index] + self.length
        known = (id(valid), total)
        if known not in self.masks:
            if valid is not None:
                valid = nn.functional.pad(valid, (0, total - valid.shape[1]), value=True)
            parts = self.session.parts
            self.masks[known] = causal_mask(parts, valid, len(hidden), self.length, total, hidden)
        return at.forward(hidden, **{**kwargs, **self._positions(at, hidden, kwargs), "attention_mask": self.masks[known]})

    def _positions(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Where a layer has fewer tokens than the first, under repacked positions: its own, which go on from these tokens."""
        first, own = self.state.shift[0], self.state.shift[at.index]
        if first is None or own is None or own is first:
            return {}
        ids = kwargs["position_ids"] - (own - first)[:, None]
        if id(own) not in self.embeddings:
            self.embeddings[id(own)] = self.session.parts.decoder.rotary_emb(hidden, ids)
        return {"position_ids": ids, "position_embeddings": self.embeddings[id(own)]}
