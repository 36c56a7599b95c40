"""Pruners that look at what they are given, and at no more."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fitprune import Pruner


@dataclass
class Looking(Pruner):
    """Prunes nothing; hands what it sees before the decoder to `look`."""

    name: ClassVar[str] = "looking"
    vision: ClassVar[bool] = True
    look: object = None

    def observed_tower_layers(self, layers):
        return [layers - 1, -2]

    def before_layer(self, layer, tokens):
        if layer == 0:
            self.look(tokens)


@dataclass
class Coarse(Pruner):
    """The tower sees every image in `rows` × `columns` patches."""

    name: ClassVar[str] = "coarse"
    rows: int = 3
    columns: int = 4
    positions: str = "repacked"

    def before_tower(self, pixels):
        size = (4 * self.rows, 4 * self.columns)
        return torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True)
