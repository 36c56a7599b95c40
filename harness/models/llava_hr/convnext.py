"""The slow branch: a ConvNeXt (arXiv 2201.03545) up to its last feature map, without a head.

Modules are named as in the authors' checkpoints, where the LayerScale is a block's own `weight`. The ConvNeXt of
transformers fixes the LayerNorm epsilon at 1e-6, and ConvNeXt-XXL was trained with 1e-5; so of transformers only the
configuration is used.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from transformers import ConvNextConfig
from transformers import initialization as init

from harness.models.llava_hr.pretrained import LlavaHrPreTrainedModel


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (batch, channels, height, width)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """x + LayerScale(MLP(LayerNorm(depthwise 7×7 convolution of x)))."""

    def __init__(self, config: Any, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), float(config.layer_scale_init_value)))
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        update = self.mlp(self.norm(self.conv_dw(features).permute(0, 2, 3, 1)))
        return features + (self.weight * update).permute(0, 3, 1, 2)


class ConvNextStage(nn.Module):
    """Blocks of one width; every stage but the first halves height and width before them."""

    def __init__(self, config: Any, index: int) -> None:
        super().__init__()
        width = config.hidden_sizes[index]
        self.downsample: nn.Module = nn.Identity()
        if index:
            before = config.hidden_sizes[index - 1]
            self.downsample = nn.Sequential(
                ChannelLayerNorm(before, eps=config.layer_norm_eps), nn.Conv2d(before, width, 2, stride=2)
            )
        self.blocks = nn.Sequential(*(ConvNextBlock(config, width) for _ in range(config.depths[index])))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.downsample(features))


class ConvNextBranch(LlavaHrPreTrainedModel):
    """Pixels (batch, 3, S, S) to features (batch, channels, S/32, S/32)."""

    config: ConvNextConfig  # type: ignore[assignment]
    main_input_name = "pixel_values"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        patch, width = config.patch_size, config.hidden_sizes[0]
        self.stem = nn.Sequential(
            nn.Conv2d(config.num_channels, width, patch, stride=patch), ChannelLayerNorm(width, eps=config.layer_norm_eps)
        )
        self.stages = nn.Sequential(*(ConvNextStage(config, index) for index in range(len(config.depths))))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ConvNextBlock):
            init.constant_(module.weight, self.config.layer_scale_init_value)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.stages(self.stem(pixel_values))
