"""What training asks of a family of models: one small class each, listed in `families.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerFast, ProcessorMixin

from harness.scenes.draw import Canvas
from training.views import Views


class Family(ABC):
    """Models of one architecture, at any width, and how their visual tokens come from pictures."""

    model_class: Any
    classes: str
    """What it is made of, for the model card."""
    card: str
    """Markdown for the model card: the tower of `{layers}` layers × `{width}`, and the projector."""

    @abstractmethod
    def make_model(self, tokenizer: PreTrainedTokenizerFast, width: int = 128, layers: int = 8) -> Any:
        """An untrained model."""

    @abstractmethod
    def make_processor(self) -> ProcessorMixin:
        """Its processor."""

    @cached_property
    def _images(self) -> Any:
        return self.make_processor().image_processor  # type: ignore[attr-defined]

    @abstractmethod
    def views(self, canvas: Canvas) -> Views:
        """What each visual token of a picture on this canvas shows."""

    def pixel_values(self, pictures: np.ndarray) -> Tensor:
        """What the processor makes of pictures of one size, uint8 (images, height, width, 3)."""
        return self._images(list(pictures), input_data_format="channels_last", return_tensors="pt")["pixel_values"]

    def tower(self, model: Any) -> Any:
        """The module that the tower stage trains."""
        return model.model.vision_tower

    @abstractmethod
    def features(self, model: Any, pixel_values: Tensor, canvas: Canvas) -> tuple[Tensor, Tensor | None]:
        """What the projector reads, float (images, P, width), in the order of the visual tokens; and the state that sums an
        image up, (images, width), where the tower has one.
        """

    def visual_tokens(self, model: Any, features: Tensor, canvas: Canvas) -> Tensor:
        """What the decoder reads, float (images, V, width)."""
        return model.model.multi_modal_projector(features)

    @abstractmethod
    def start_from(self, model: Any, source: Any) -> None:
        """Takes over the weights of the trained LLaVA `source`."""
