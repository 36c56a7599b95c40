"""Deepening a decoder in the middle of its training."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn


def deepen(model: Any, inserted: Sequence[int]) -> None:
    """Inserts a decoder layer after layer n, counted from 1, for every n in `inserted`. A new layer is a copy of the one that
    it comes before, with output projections of zero: it hands on what it reads, and the model answers as before. It attends
    as that one does; behind the last layer it copies that.
    """
    decoder = model.get_decoder()
    layers = []
    for number, layer in enumerate(decoder.layers, 1):
        layers.append(layer)
        for _ in range(inserted.count(number)):
            layers.append(deepcopy(decoder.layers[min(number, len(decoder.layers) - 1)]))
            with torch.no_grad():
                layers[-1].self_attn.o_proj.weight.zero_()
                layers[-1].mlp.down_proj.weight.zero_()
    for index, layer in enumerate(layers):
        layer.self_attn.layer_idx = index
    decoder.layers = nn.ModuleList(layers)
    decoder.config.num_hidden_layers = len(layers)
    assert model.config.text_config is decoder.config


def depth_after(depth: int, inserted: Sequence[int]) -> int:
    """How many layers there are, after the insertion, below the states that had `depth` layers below them: with new layers
    right there counted in.
    """
    return depth + sum(number <= depth for number in inserted)
