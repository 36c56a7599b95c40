"""The rotary embeddings of a sequence: one for all layers, or one for each type of layer (Gemma 3)."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

# By the type of the layers that take it, None for all: cosine and sine in one tensor, (2, …, 1 or batch, T, d).
Rotary = dict[str | None, torch.Tensor]


def layer_type(decoder: Any, layer: Any) -> str | None:
    """The type of layer whose rotary embedding a decoder layer takes; None where all take the same."""
    return layer.self_attn.layer_type if _takes_types(type(decoder.rotary_emb).forward) else None


@functools.cache  # it is asked in every layer of every forward
def _takes_types(forward: Callable[..., Any]) -> bool:
    return "layer_type" in inspect.signature(forward).parameters


def of_decoder(decoder: Any, hidden: torch.Tensor, given: dict[str, Any]) -> Rotary:
    """The rotary embeddings of a forward, whose first layer is `given` these arguments."""
    types = {layer_type(decoder, layer) for layer in decoder.layers}
    if types == {None}:
        return {None: torch.stack(given["position_embeddings"])}
    return of_positions(decoder, hidden, given["position_ids"], types)


def of_positions(decoder: Any, hidden: torch.Tensor, ids: torch.Tensor, types: Any) -> Rotary:
    """The rotary embeddings of these position ids, by these types of layers, in the precision of `hidden` and on its device."""
    made = {each: decoder.rotary_emb(hidden, ids, *() if each is None else (each,)) for each in types}
    return {each: torch.stack(pair).to(hidden.device) for each, pair in made.items()}


def of_layer(rotary: Rotary | None, decoder: Any, layer: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Cosine and sine as a decoder layer takes them; None for none."""
    if rotary is None:
        return None
    both = rotary[layer_type(decoder, layer)]
    return both[0], both[1]
