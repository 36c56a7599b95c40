"""A forward over new tokens after a pruned prefill, where each layer's KV cache has a length of its own."""

from typing import Any

import torch

from fitprune.engine.context import Layer, RunContext
from fitprune.engine.masks import biased_mask, causal_mask, replaced_mask
from fitprune.models.execution import moved
from fitprune.models.kv_cache import CacheState
from fitprune.models.parts import frequencies_vary
from fitprune.models.rotary import layer_type


class Decode:
    """A forward over decoded tokens, or over the text of a later turn of a conversation."""

    def __init__(self, context: RunContext, state: CacheState, cache: Any, mask: torch.Tensor | None, length: int) -> None:
        """Start a forward over `length` more tokens; `mask` (batch, tokens so far + length) as the decoder was called with."""
        self.context, self.state, self.cache, self.length = context, state, cache, length
        state.check(cache, len(context.parts.layers))
        state.extend(mask, length)
        self.masks: dict[int, Any] = {}
        self.stage, self.offsets = state.stages()
        self.positions: dict[tuple[int, str | None, torch.device], dict[str, Any]] = {}

    def arguments(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The decoder's arguments, without the mask that fits no layer, and with the position ids of every stage.

        Where layers differ in them, those of each stage stand side by side, (batch, stages * length): so the decoder makes all
        rotary embeddings at once, and a layer is given its part.
        """
        embeds, ids = kwargs.get("inputs_embeds"), kwargs.get("position_ids")
        given = kwargs["input_ids"] if embeds is None else embeds
        if ids is None:
            # The decoder would number them by the length of the cache, in which they are counted already.
            ids = torch.arange(self.state.seen - self.length, self.state.seen, device=given.device)[None]
        if self.offsets is not None:
            ids = (ids[:, None] - self.offsets.to(ids.device)[..., None]).flatten(1)
        return {**kwargs, "attention_mask": replaced_mask(given), "position_ids": ids}

    def run(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """One layer, with the mask and the position ids of what its cache holds."""
        held = self.state.layers[at.index]
        if id(held) not in self.masks:
            mask = self._mask(at, hidden)
            held = self.state.layers[at.index]  # with room for what comes later, for every layer that shares it
            self.masks[id(held)] = mask
        return at.forward(hidden, **{**kwargs, **self._positions(at, hidden, kwargs), "attention_mask": self.masks[id(held)]})

    def _mask(self, at: Layer, hidden: torch.Tensor) -> Any:
        parts, bias = self.context.parts, moved(self.state.bias(at.index), hidden.device)
        if bias is not None and hidden.shape[1] == 1 and self.state.later is None:
            # Of one query nothing is hidden but padding, which the bias hides.
            return biased_mask(parts, None, bias[:, None], hidden.dtype)
        mask = causal_mask(parts, hidden, moved(self.state.valid(at.index), hidden.device), self.cache, at.index)
        return mask if bias is None else biased_mask(parts, mask, bias[:, None].expand(-1, hidden.shape[1], -1), hidden.dtype)

    def _positions(self, at: Layer, hidden: torch.Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The position ids and embeddings of a layer's stage, where there are several."""
        stage = self.stage[at.index]
        if max(self.stage) == 0:
            return {}
        kind = layer_type(self.context.parts.decoder, at.module)
        if (stage, kind, hidden.device) not in self.positions:
            own = slice(stage * self.length, (stage + 1) * self.length)
            ids, embeddings = moved((kwargs["position_ids"], kwargs["position_embeddings"]), hidden.device)
            ids, embeddings = ids[:, own], tuple(part[:, own] for part in embeddings)
            if stage and frequencies_vary(self.context.parts.decoder):
                embeddings = moved(self.context.parts.decoder.rotary_emb(hidden, ids), hidden.device)
            self.positions[stage, kind, hidden.device] = {"position_ids": ids, "position_embeddings": embeddings}
        return self.positions[stage, kind, hidden.device]
