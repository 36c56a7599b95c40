"""The family of llava-next-tiny: `LlavaNextForConditionalGeneration`, a base view and tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)

from harness.scenes.draw import GRID, SIZE, Canvas
from training import views
from training.family import Family
from training.model import IMAGES, generation_config, llava_settings, processor_settings
from training.views import NOTHING, Views

PINPOINTS = [[SIZE, SIZE], [SIZE, 3 * SIZE], [3 * SIZE, SIZE]]
"""Height and width of what a picture is fitted into, and cut into 96×96 tiles from: a tile for all cells, or for each
column, or for each row.
"""


class LlavaNext(Family):
    """See `Family`."""

    model_class = LlavaNextForConditionalGeneration
    classes = "the stock `transformers` classes of LLaVA-NeXT"
    card = (
        "- Views: the whole picture at 96×96 pixels, and tiles of 96×96: one, or three in a row or a column (anyres, with\n"
        "  unpadding and newline tokens). A picture of another size is fitted into one of these.\n"
        "- Vision tower: CLIP, {layers} layers × {width}, 144 patch tokens and [CLS] from each view; the decoder reads\n"
        "  layer -2, patches only. Projector: two layers."
    )

    def make_model(
        self, tokenizer: PreTrainedTokenizerFast, width: int = 128, layers: int = 8
    ) -> LlavaNextForConditionalGeneration:
        config = LlavaNextConfig(**llava_settings(tokenizer, width, layers), image_grid_pinpoints=PINPOINTS)
        model = LlavaNextForConditionalGeneration(config)
        model.generation_config = generation_config(tokenizer)
        return model

    def make_processor(self) -> LlavaNextProcessor:
        crop = {"height": SIZE, "width": SIZE}
        images = LlavaNextImageProcessorPil(**IMAGES, crop_size=crop, image_grid_pinpoints=PINPOINTS)
        return LlavaNextProcessor(images, **processor_settings())

    def views(self, canvas: Canvas) -> Views:
        base, full = views.reduced(canvas), views.full(canvas)
        shape = (GRID * canvas[0], GRID * canvas[1])
        patch = np.pad(full.patch.reshape(shape), ((0, 0), (0, 1)), constant_values=NOTHING).ravel()
        reads = np.pad(full.reads.reshape(shape), ((0, 0), (0, 1))).ravel()
        return Views(np.concatenate([base.patch, patch]), np.concatenate([base.reads, reads]))

    def features(self, model: Any, pixel_values: Tensor, canvas: Canvas) -> tuple[Tensor, Tensor | None]:
        images, count = pixel_values.shape[:2]
        states = model.model.vision_tower(pixel_values.flatten(0, 1), output_hidden_states=True).hidden_states[-2][:, 1:]
        states = states.unflatten(0, (images, count))
        tiles = states[:, 1:].reshape(images, *canvas, GRID, GRID, -1).transpose(2, 3)
        return torch.cat([states[:, 0], tiles.flatten(1, 4)], dim=1), None

    def visual_tokens(self, model: Any, features: Tensor, canvas: Canvas) -> Tensor:
        projected = model.model.multi_modal_projector(features)
        base, tiles = projected[:, :NOTHING], projected[:, NOTHING:].unflatten(1, (GRID * canvas[0], GRID * canvas[1]))
        newline = model.model.image_newline.expand(*tiles.shape[:2], 1, -1).to(tiles.dtype)
        return torch.cat([base, torch.cat([tiles, newline], dim=2).flatten(1, 2)], dim=1)

    def start_from(self, model: Any, source: LlavaForConditionalGeneration) -> None:
        model.load_state_dict({**source.state_dict(), "model.image_newline": model.model.image_newline})
