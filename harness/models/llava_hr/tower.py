"""The two-branch vision tower: a CLIP on a small image, corrected on its way by a ConvNeXt on the large one."""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPPreTrainedModel, CLIPVisionEmbeddings

from fitprune.errors import FitPruneError
from harness.models.llava_hr.adapters import FinalAlignment, LatentAdapter
from harness.models.llava_hr.configuration import LlavaHrVisionConfig
from harness.models.llava_hr.convnext import ConvNextBranch
from harness.models.llava_hr.pretrained import LlavaHrPreTrainedModel


class ClipBranch(CLIPPreTrainedModel):
    """The parts of a CLIP vision model that LLaVA-HR uses.

    The class token is cut off before the first norm, so nothing attends to it: its embedding is kept because the
    checkpoints hold it, and read by nobody. There is no norm after the last layer.
    """

    config: CLIPVisionConfig  # type: ignore[assignment]
    main_input_name = "pixel_values"

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = CLIPEncoder(config)  # type: ignore[arg-type]
        self.post_init()

    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixels (batch, 3, s, s) to what enters the first layer, (batch, (s / patch)², hidden)."""
        patches = self.embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        return self.pre_layrnorm(patches + self.positions(patches.shape[1], patches.device))

    def positions(self, count: int, device: torch.device | str) -> torch.Tensor:
        """Position embeddings (count, hidden); the table is resampled to another grid, antialiased also when it grows."""
        # Looked up, not read off the parameter: offloaded weights are there only while their module is called.
        places = torch.arange(1, self.embeddings.num_positions, device=device)
        table = self.embeddings.position_embedding(places)
        if len(table) == count:
            return table
        old, new = math.isqrt(len(table)), math.isqrt(count)
        grid = table.float().T.reshape(1, -1, old, old)
        grid = functional.interpolate(grid, size=(new, new), mode="bicubic", antialias=True, align_corners=False)
        return grid.flatten(2)[0].T.to(table.dtype)


class LlavaHrVisionTower(LlavaHrPreTrainedModel):
    """Pixels (batch, 3, S, S) to features (batch, N, D): all N tokens are patches, there is no [CLS]."""

    config: LlavaHrVisionConfig  # type: ignore[assignment]
    main_input_name = "pixel_values"

    def __init__(self, config: LlavaHrVisionConfig) -> None:
        super().__init__(config)
        widths = config.clip_config.hidden_size, config.convnext_config.hidden_sizes[-1]
        self.fast = ClipBranch(config.clip_config)
        self.slow = ConvNextBranch(config.convnext_config)
        self.adapters = nn.ModuleList(LatentAdapter(*widths) for _ in range(0 if config.freeze_vision else 3))
        self.alignment = FinalAlignment(*widths)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        side, small = self.config.image_size, self.config.fast_image_size
        if pixel_values.shape[1:] != (self.config.convnext_config.num_channels, side, side):
            raise FitPruneError(
                f"pixel_values are {tuple(pixel_values.shape)}, the tower takes (images, 3, {side}, {side}); "
                "prepare images with the model's own processor."
            )
        pixel_values = pixel_values.to(self.alignment.fast_proj.weight.dtype)
        fast_image = functional.interpolate(pixel_values.float(), size=(small, small), mode="bilinear", align_corners=True)
        fast = self.fast.embed(fast_image.to(pixel_values.dtype))
        slow = self.slow(pixel_values)
        layers = self.fast.encoder.layers
        for number, layer in enumerate(layers, 1):
            fast = layer(fast, attention_mask=None)
            group, rest = divmod(number * 4, len(layers))
            if not rest and group <= len(self.adapters):
                fast = self.adapters[group - 1](fast, slow)
        return self.alignment(fast, slow)
