"""`lean`: greedy answers without what they do not depend on.

- The vision tower's layers above the last one that is read do not run. Features are the same to the bit.
- Behind the keys and values of the decoder's last layer, only the last row of a prompt goes on: what follows it is read
  there. On llava-tiny that is a tenth of a prefill.
- Keys and values are not copied anew at each decoded token.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer

from fitprune import Pruner
from fitprune.engine.tap import Observation, gather_survivors, observing_config
from fitprune.engine.undo import Attachments
from fitprune.errors import UnsupportedModel
from fitprune.models.parts import ModelParts, fed_forward, joined, model_parts
from fitprune.models.releases import CACHE_ARGUMENT
from fitprune.models.tower import tower_parts

ROOM = 16  # tokens that a layer of the cache has room for, beyond those that it holds
SLICED = ("sdpa", "eager")  # attention whose queries may be the last rows alone: their masks have a row for each query


@contextmanager
def lean(model: Any, pruner: Pruner | None) -> Iterator[dict[str, Any]]:
    """Inside, for one greedy `generate`, in whose context `pruner` is entered; yields options for it, a cache among them.

    A model of unknown form generates as it does by itself.
    """
    parts = _known(model)
    if parts is None:
        yield {}
        return
    attached = Attachments()
    try:
        _stop_tower(attached, parts, pruner)
        _narrow_last_layer(attached, parts)
        yield {CACHE_ARGUMENT: roomy_cache(parts.text_config)}
    finally:
        attached.remove()


def _known(model: Any) -> ModelParts | None:
    if not isinstance(model, GenerationMixin):
        return None
    try:
        return model_parts(model)
    except UnsupportedModel:
        return None


def _stop_tower(attached: Attachments, parts: ModelParts, pruner: Pruner | None) -> None:
    """Let images through the tower's layers that neither the model nor the pruner reads."""
    tower = tower_parts(parts)
    if tower is None or tower.mixes:
        return
    total = len(tower.layers)
    read: Collection[int] = () if pruner is None else pruner.observed_tower_layers(total)
    last = max([tower.feature_layer, *(index % total for index in read)])
    for layer in tower.layers[last + 1 :]:
        attached.set(layer, "forward", _unchanged)


def _unchanged(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return hidden_states


def _narrow_last_layer(attached: Attachments, parts: ModelParts) -> None:
    layer: Any = parts.layers[-1]
    attention = layer.self_attn
    # DeepStack adds to a prompt's rows behind a layer, maybe behind this one.
    deep = hasattr(getattr(parts.parent.config, "vision_config", None), "deepstack_visual_indexes")
    # Accelerate's hook on a layer brings what it is given to the layer's device, around the forward that it was given.
    placed = hasattr(layer, "_hf_hook")
    if deep or placed or attention.config._attn_implementation not in SLICED:
        return
    attached.set(attention, "config", observing_config(attention.config))
    attached.hook(attention.o_proj.register_forward_pre_hook, gather_survivors)
    attached.set(layer, "forward", _LastRow(layer))


class _LastRow:
    """Stands in for the forward of a decoder's last layer: gives (batch, 1, hidden_size)."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.forward = layer, layer.forward

    @torch.compiler.disable
    def __call__(self, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        if hidden_states.shape[1] == 1:
            return self.forward(hidden_states, **kwargs)
        layer = self.layer
        with Observation(lambda attention: _last, last_row=True):
            attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
        residual = joined(layer, attended) + _last(hidden_states)
        return residual + fed_forward(layer, residual)


def _last(rows: torch.Tensor) -> torch.Tensor:
    return rows[:, -1:]


def roomy_cache(text_config: Any) -> DynamicCache:
    """The cache that `generate` makes, whose layers have room for tokens that come later."""
    cache = DynamicCache(config=text_config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _RoomyLayer(DynamicLayer):
    """Keeps what it is given first as it is. Later keys and values are written into room that is there."""

    def __init__(self) -> None:
        super().__init__()
        self._room: dict[str, torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.get_seq_length() == 0:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        else:
            self.keys = self._appended("keys", key_states)
            self.values = self._appended("values", value_states)
        return self.keys, self.values

    def _appended(self, name: str, new: torch.Tensor) -> torch.Tensor:
        held, room = getattr(self, name), self._room.get(name)
        before, after = held.shape[2], held.shape[2] + new.shape[2]
        # Where the cache was reordered or cropped, what it holds is no longer the beginning of the room.
        if room is None or held.data_ptr() != room.data_ptr() or len(held) != len(room) or room.shape[2] < after:
            room = held.new_empty(*held.shape[:2], after + ROOM, held.shape[3])
            room[:, :, :before] = held
            self._room[name] = room
        room[:, :, before:after] = new
        return room[:, :, :after]
