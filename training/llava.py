"""The family of llava-tiny: `LlavaForConditionalGeneration`, one view, 144 visual tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

from harness.scenes.draw import Canvas
from training import views
from training.model import make_model, make_processor


class Llava:
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
        return make_model(tokenizer, width=width, layers=layers)

    def make_processor(self) -> LlavaProcessor:
        return make_processor()

    def views(self, canvas: Canvas) -> views.Views:
        return views.reduced(canvas)

    def pixel_values(self, pictures: np.ndarray) -> Tensor:
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1

    def tower(self, model: LlavaForConditionalGeneration) -> nn.Module:
        return model.model.vision_tower

    def features(self, model: LlavaForConditionalGeneration, pixel_values: Tensor, canvas: Canvas) -> tuple[Tensor, Tensor]:
        output = model.model.vision_tower(pixel_values, output_hidden_states=True)
        return output.hidden_states[-2][:, 1:], output.pooler_output

    def visual_tokens(self, model: LlavaForConditionalGeneration, features: Tensor, canvas: Canvas) -> Tensor:
        return model.model.multi_modal_projector(features)

    def start_from(self, model: LlavaForConditionalGeneration, source: LlavaForConditionalGeneration) -> None:
        model.load_state_dict(source.state_dict())
