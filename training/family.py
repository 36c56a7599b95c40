"""What training asks of a family of models: one small class each, listed in `families.py`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerFast, ProcessorMixin

from harness.scenes.draw import Canvas
from training.views import Views


class Family(Protocol):
    """Models of one architecture, at any width, and how their visual tokens come from pictures."""

    model_class: Any
    classes: str
    """What it is made of, for the model card."""
    card: str
    """Markdown for the model card: the tower of `{layers}` layers × `{width}`, and the projector."""

    def make_model(self, tokenizer: PreTrainedTokenizerFast, width: int = 128, layers: int = 8) -> Any:
        """An untrained model."""

    def make_processor(self) -> ProcessorMixin:
        """Its processor."""

    def views(self, canvas: Canvas) -> Views:
        """What each visual token of a picture on this canvas shows."""

    def pixel_values(self, pictures: np.ndarray) -> Tensor:
        """What the processor makes of pictures of one size, uint8 (images, height, width, 3)."""

    def tower(self, model: Any) -> Any:
        """The module that the tower stage trains."""

    def features(self, model: Any, pixel_values: Tensor, canvas: Canvas) -> tuple[Tensor, Tensor | None]:
        """What the projector reads, float (images, P, width), in the order of the visual tokens; and the state that sums an
        image up, (images, width), where the tower has one.
        """

    def visual_tokens(self, model: Any, features: Tensor, canvas: Canvas) -> Tensor:
        """What the decoder reads, float (images, V, width)."""

    def start_from(self, model: Any, source: Any) -> None:
        """Takes over the weights of the trained LLaVA `source`."""
