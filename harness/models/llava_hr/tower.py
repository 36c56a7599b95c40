"""The two-branch vision tower: a CLIP on a small image, corrected on its way by a ConvNeXt on the large one."""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPPreTrainedModel, CLIPVisionEmbeddings

from fitprune.errors import FitPruneError
from fitprune.models.execution import floating_type
from harness.models.llava_hr.adapters import FinalAlignment, Grid, LatentAdapter
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
        """Pixels (batch, 3, h, w) to what enters the first layer, (batch, (h / patch) · (w / patch), hidden)."""
        patches = self.embeddings.patch_embedding(pixel_values)
        positions = self.positions((patches.shape[2], patches.shape[3]), patches.device)
        return self.pre_layrnorm(patches.flatten(2).transpose(1, 2) + positions)

    def positions(self, grid: Grid, device: torch.device | str) -> torch.Tensor:
        """Position embeddings (rows · columns, hidden) of a grid; the table, of a square one, is resampled to any other,
        antialiased also when it grows."""
        # Looked up, not read off the parameter: offloaded weights are there only while their module is called.
        places = torch.arange(1, self.embeddings.num_positions, device=device)
        table = self.embeddings.position_embedding(places)
        side = math.isqrt(len(table))
        if grid == (side, side):
            return table
        resampled = table.float().T.reshape(1, -1, side, side)
        # torch mixes up the rows of a grid that becomes one column wide in the same step (seen in 2.13).
        for size in [(grid[0], side), grid] if grid[1] == 1 else [grid]:
            resampled = functional.interpolate(resampled, size=size, mode="bicubic", antialias=True, align_corners=False)
        return resampled.flatten(2)[0].T.to(table.dtype)


class LlavaHrVisionTower(LlavaHrPreTrainedModel):
    """Pixels (batch, 3, S, S) to features (batch, N, D): all N tokens are patches, there is no [CLS].

    A smaller picture (batch, 3, h, w) is encoded as it is, on the grid of as many pixels a token. The authors know
    no such pictures; their arithmetic at the full size is untouched.
    """

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
        height, width = (int(length) for length in pixel_values.shape[-2:])
        if pixel_values.shape[1:-2] != (self.config.convnext_config.num_channels,) or not max(height, width) <= side:
            raise FitPruneError(
                f"pixel_values are {tuple(pixel_values.shape)}, the tower takes (images, 3, {side}, {side}) or smaller ones; "
                "prepare images with the model's own processor."
            )
        pixel_values = pixel_values.to(floating_type(self))
        grid, most = self.config.grid(height, width), small // self.config.clip_config.patch_size
        fast = self.fast.embed(_resized(pixel_values, (grid[0] * small // most, grid[1] * small // most)))
        slow_size = self.config.slow_size(height, width)
        slow = self.slow(pixel_values if slow_size == (height, width) else _resized(pixel_values, slow_size))
        layers = self.fast.encoder.layers
        for number, layer in enumerate(layers, 1):
            fast = layer(fast, attention_mask=None)
            group, rest = divmod(number * 4, len(layers))
            if not rest and group <= len(self.adapters):
                fast = self.adapters[group - 1](fast, slow, grid)
        return self.alignment(fast, slow, grid)


def _resized(pixel_values: torch.Tensor, size: Grid) -> torch.Tensor:
    """As the authors make the fast branch's small picture: bilinear, corners aligned, in float32."""
    resized = functional.interpolate(pixel_values.float(), size=size, mode="bilinear", align_corners=True)
    return resized.to(pixel_values.dtype)
