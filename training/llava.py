"""The family of llava-tiny: `LlavaForConditionalGeneration`, one view, 144 visual tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from harness.scenes.draw import GRID, Canvas
from training import views
from training.family import Family
from training.model import IMAGES, generation_config, llava_settings, processor_settings


class Llava(Family):
    """See `Family`."""

    model_class = LlavaForConditionalGeneration
    classes = "the stock `transformers` classes"
    card = (
        "- Vision tower: CLIP, {layers} layers × {width}, 144 patch tokens and [CLS] from a 96×96 picture; the decoder reads\n"
        "  layer -2, patches only. Projector: two layers."
    )

    def make_model(
        self, tokenizer: PreTrainedTokenizerFast, width: int = 128, layers: int = 8
    ) -> LlavaForConditionalGeneration:
        """The last tower layer is not read by the decoder (feature layer -2), as in LLaVA-1.5."""
        model = LlavaForConditionalGeneration(LlavaConfig(**llava_settings(tokenizer, width, layers)))
        model.generation_config = generation_config(tokenizer)
        tower = model.model.vision_tower
        embeddings = tower.embeddings if hasattr(tower, "embeddings") else tower.vision_model.embeddings
        with torch.no_grad():
            embeddings.position_embedding.weight[1:] = 0.5 * _sine_positions(width)
        return model

    def make_processor(self) -> LlavaProcessor:
        """Pixels to [-1, 1], 144 image tokens, the chat template. It does not need torchvision."""
        return LlavaProcessor(CLIPImageProcessorPil(**IMAGES), **processor_settings())

    def views(self, canvas: Canvas) -> views.Views:
        return views.reduced(canvas)

    def pixel_values(self, pictures: np.ndarray) -> Tensor:
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1

    def features(self, model: Any, pixel_values: Tensor, canvas: Canvas) -> tuple[Tensor, Tensor]:
        output = model.model.vision_tower(pixel_values, output_hidden_states=True)
        return output.hidden_states[-2][:, 1:], output.pooler_output

    def start_from(self, model: Any, source: LlavaForConditionalGeneration) -> None:
        model.load_state_dict(source.state_dict())


def _sine_positions(width: int) -> Tensor:
    """Sines and cosines of row and column, float (144, width)."""
    frequencies = 1.0 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = torch.arange(GRID)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.cat([axis.repeat_interleave(GRID, dim=0), axis.repeat(GRID, 1)], dim=1)
