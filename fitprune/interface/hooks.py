"""`Hooks`: everything that a pruning method may override. The engine calls these, and knows a method by them alone."""

from collections.abc import Collection
from typing import Any, ClassVar

import torch
from torch import nn

from fitprune.interface.attention import Attention
from fitprune.interface.bias import AttentionBias
from fitprune.interface.layout import Keep
from fitprune.interface.selection import Selection
from fitprune.interface.tokens import VisualTokens
from fitprune.interface.tower import TowerTokens


class Hooks:
    """The hooks of a pruning method; each does nothing unless it is overridden.

    Attributes:
        name: the method's name in the registry and in results.
        vision: the method looks at what the vision tower made of the images (`VisualTokens.vision`).
        merges_in_tower: the method changes tokens between the tower's layers; set where `after_tower_attention` is overridden.
        resizes_pictures: the method changes what is encoded; set where `before_tower` is overridden.
        videos: the method prunes videos alone, by their frames (`VisualTokens.videos`).
        biases_attention: the method changes the decoder's attention; set where `attention_bias` is overridden.
        text_degree: of the polynomial in the number of text tokens, from 16 of them on, that the method's scoring costs; how
            many visual tokens stay must not depend on the text. None where nothing is known: plans try each length of prompt.
        newlines, positions: see `Pruner`.
    """

    name: ClassVar[str]
    vision: ClassVar[bool] = False
    merges_in_tower: ClassVar[bool] = False
    resizes_pictures: ClassVar[bool] = False
    videos: ClassVar[bool] = False
    biases_attention: ClassVar[bool] = False
    text_degree: int | None = None
    newlines: str = "kept"
    positions: str = "kept"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A class that overrides a hook and says by itself whether that changes anything (a wrapper) is taken at its word.
        if "after_tower_attention" in vars(cls) and "merges_in_tower" not in vars(cls):
            cls.merges_in_tower = True
        if "before_tower" in vars(cls) and "resizes_pictures" not in vars(cls):
            cls.resizes_pictures = True
        if "attention_bias" in vars(cls):
            cls.biases_attention = True

    @property
    def members(self) -> "tuple[Hooks, ...]":
        """The methods that work one after the other under this one's name; a method by itself is its only member."""
        return (self,)

    @property
    def changes_tower(self) -> bool:
        """Whether the method changes what runs in the vision tower."""
        return self.merges_in_tower or self.resizes_pictures

    @property
    def looks_into_tower(self) -> bool:
        """Whether the method sees or changes anything before the decoder."""
        return self.vision or self.changes_tower

    def check(self, model: nn.Module) -> None:
        """Raise a `FitPruneError` if the method cannot be applied to `model`; called on entering the context."""

    def notes(self, model: nn.Module) -> list[str]:
        """What a reader of a result on `model` must know, such as a part of the rule that it cannot follow there."""
        return []

    def observed_layers(self, layers: int) -> Collection[int]:
        """The layers whose attention `after_attention` wants to see, of a decoder with `layers` layers."""
        return ()

    def observed_tower_layers(self, layers: int) -> Collection[int]:
        """The layers of the vision tower, of `layers`, whose queries and keys `VisualTokens.vision` keeps."""
        return ()

    def before_tower(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """Smaller pictures (views, channels, height, width) to encode in place of `pixels`; None for these."""
        return None

    def after_tower_attention(self, layer: int, tower: TowerTokens) -> TowerTokens | None:
        """Fewer tokens that go on in the vision tower after the attention of its layer `layer`; None for all of them.

        Attention weighs them by their size from there on, and those left at the end go through the projector.
        """
        return None

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | Keep | Selection | None:
        """Which visual tokens enter layer `layer`: bool (batch, n), a `Keep`, a `Selection`, or None for all of them."""
        return None

    def attention_bias(self, layer: int, tokens: VisualTokens) -> AttentionBias | None:
        """What is added to the logits of the attention of layer `layer`, once `before_layer` has chosen; None for nothing.

        Layers that are answered with the same tensors share one mask. The attention must be SDPA or eager.
        """
        return None

    def after_attention(self, layer: int, tokens: VisualTokens, attention: Attention) -> torch.Tensor | Keep | None:
        """Which visual tokens stay after the attention of an observed layer: bool (batch, n), a `Keep`, or None for all.

        The others take no part in that layer's output projection, residual and feed-forward network.
        """
        return None
