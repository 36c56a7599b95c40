"""The family of llava-hr-tiny: a CLIP on the picture at 96×96, corrected by a ConvNeXt on the picture at 192×192."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import ConvNextConfig, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from harness.models.llava_hr import (
    LlavaHrConfig,
    LlavaHrForConditionalGeneration,
    LlavaHrImageProcessor,
    LlavaHrProcessor,
    LlavaHrVisionConfig,
)
from harness.scenes.draw import GRID, SIZE, Canvas
from training import views
from training.family import Family
from training.model import CHAT_TEMPLATE, generation_config, text_config, vision_config
from training.tokenizer import build

SIDE = 2 * SIZE
STEM = 4
"""Pixels of the ConvNeXt's patches; its two later stages halve, so that its features are on the CLIP's 12×12 grid."""


class LlavaHr(Family):
    """See `Family`."""

    model_class = LlavaHrForConditionalGeneration
    classes = "this project's implementation of LLaVA-HR for `transformers`"
    card = (
        "- Vision tower: a CLIP of {layers} layers × {width} on the picture at 96×96 pixels, and a ConvNeXt on the picture at\n"
        "  192×192, whose features are mixed in after each layer; 144 tokens, no [CLS]. Projector: two layers."
    )

    def make_model(
        self, tokenizer: PreTrainedTokenizerFast, width: int = 128, layers: int = 8
    ) -> LlavaHrForConditionalGeneration:
        slow = ConvNextConfig(
            patch_size=STEM,
            depths=[1, 2, 1],
            hidden_sizes=[width * share // 8 for share in (3, 6, 8)],
            num_stages=3,
            layer_scale_init_value=0.5,
        )
        vision = LlavaHrVisionConfig(
            clip_config=vision_config(width), convnext_config=slow, image_size=SIDE, fast_image_size=SIZE
        )
        config = LlavaHrConfig(
            vision_config=vision,
            text_config=text_config(tokenizer, width, layers),
            image_token_id=tokenizer.get_vocab()["<image>"],
        )
        model = LlavaHrForConditionalGeneration(config)
        model.generation_config = generation_config(tokenizer)
        return model

    def make_processor(self) -> LlavaHrProcessor:
        return LlavaHrProcessor(
            image_processor=LlavaHrImageProcessor(
                size={"shortest_edge": SIDE},
                crop_size={"height": SIDE, "width": SIDE},
                image_mean=[0.5, 0.5, 0.5],
                image_std=[0.5, 0.5, 0.5],
            ),
            tokenizer=build(),
            image_seq_length=GRID * GRID,
            image_token="<image>",
            chat_template=CHAT_TEMPLATE,
        )

    def views(self, canvas: Canvas) -> views.Views:
        return views.whole()

    def features(self, model: Any, pixel_values: Tensor, canvas: Canvas) -> tuple[Tensor, Tensor | None]:
        return model.model.vision_tower(pixel_values), None

    def start_from(self, model: Any, source: LlavaForConditionalGeneration) -> None:
        """The CLIP branch gives what the source's decoder reads, at first: its last layer, which that decoder does not read,
        and the ConvNeXt's share in the features add nothing.
        """
        weights = source.state_dict()
        tower = model.model.vision_tower
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith("model.vision_tower.")}
        kept |= {f"model.vision_tower.{name}": tensor for name, tensor in tower.state_dict().items()}
        kept |= {f"model.vision_tower.fast.{name}": weights[f"model.vision_tower.{name}"] for name in tower.fast.state_dict()}
        model.load_state_dict(kept)
        last = tower.fast.encoder.layers[-1]
        with torch.no_grad():
            for linear in (last.self_attn.out_proj, last.mlp.fc2, tower.alignment.fast_proj, tower.alignment.slow_proj):
                linear.weight.zero_()
                linear.bias.zero_()
            tower.alignment.fast_proj.weight.copy_(torch.eye(len(linear.bias)))
