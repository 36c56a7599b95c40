"""LLaVA-HR as a transformers model: what `AutoModelForImageTextToText` gives for a folder of model type `llava_hr`."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModel, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import LlavaModelOutputWithPast
from transformers.utils.generic import can_return_tuple

from fitprune.errors import FitPruneError
from fitprune.models.images import unmatched
from fitprune.models.releases import image_result
from harness.models.llava_hr.configuration import LlavaHrConfig
from harness.models.llava_hr.pretrained import LlavaHrPreTrainedModel
from harness.models.llava_hr.tower import LlavaHrVisionTower


class LlavaHrProjector(nn.Module):
    """Features (…, D) to the decoder's width (…, H)."""

    def __init__(self, config: LlavaHrConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.clip_config.hidden_size, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear_2(functional.gelu(self.linear_1(features)))


class LlavaHrModel(LlavaHrPreTrainedModel):
    """Tower, projector and decoder, without the language-model head."""

    def __init__(self, config: LlavaHrConfig) -> None:
        super().__init__(config)
        self.vision_tower = LlavaHrVisionTower(config.vision_config)
        self.multi_modal_projector = LlavaHrProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Pixels (images, 3, S, S) to `last_hidden_state` (images, N, D), the tower's, and `pooler_output` (images, N, H),
        the embeddings that take the image tokens' places."""
        features = self.vision_tower(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=self.multi_modal_projector(features))

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        vision_feature_layer: Any = None,
        vision_feature_select_strategy: Any = None,
        image_sizes: Any = None,
        **kwargs: Any,
    ) -> LlavaModelOutputWithPast:
        """Decoder states of a prompt whose image tokens stand for the images of `pixel_values`, in order.

        The KV cache, under the name that the installed transformers has for it, goes to the decoder with all other arguments;
        what LLaVA's head hands on for other towers may not be given.
        `mm_encoder_outputs`: what `get_image_features` gave before, under "image", in place of pixels; `generate` does this.
        Raises FitPruneError where image tokens and image features differ in number.
        """
        if any(given is not None for given in (vision_feature_layer, vision_feature_select_strategy, image_sizes)):
            raise FitPruneError(
                "LLaVA-HR's tower has one output and one size: "
                "leave out vision_feature_layer, vision_feature_select_strategy and image_sizes."
            )
        if (input_ids is None) == (inputs_embeds is None):
            raise FitPruneError("give the model either input_ids or inputs_embeds, not both or neither.")
        images = (mm_encoder_outputs or {}).get("image")
        if images is None and pixel_values is not None:
            images = self.get_image_features(pixel_values, return_dict=True)
        embed = self.get_input_embeddings()
        embeds = inputs_embeds if inputs_embeds is not None else embed(input_ids)
        features = None
        if images is not None:
            features = images["pooler_output"].to(embeds.device, embeds.dtype)
            token = self.config.image_token_id
            if input_ids is not None:
                places = input_ids == token
            else:
                places = (embeds == embed(torch.tensor(token, device=embeds.device))).all(-1)
            tokens, expected = int(places.sum()), features.shape[0] * features.shape[1]
            if tokens != expected:
                raise unmatched("image", tokens, len(features), expected)
            embeds = embeds.masked_scatter(places.unsqueeze(-1).to(embeds.device), features)
        outputs = self.language_model(attention_mask=attention_mask, position_ids=position_ids, inputs_embeds=embeds, **kwargs)
        return LlavaModelOutputWithPast(**outputs, **image_result(LlavaModelOutputWithPast, images, features))


class LlavaHrForConditionalGeneration(LlavaHrPreTrainedModel, LlavaForConditionalGeneration):  # type: ignore[misc]
    """LLaVA-HR with LLaVA's language-model head: `generate` answers questions about images."""

    def __init__(self, config: LlavaHrConfig) -> None:
        super(LlavaForConditionalGeneration, self).__init__(config)  # whose own parts are LLaVA's
        self.model = LlavaHrModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
