"""What sizes does a LLaVA-HR have? The configuration of its two vision branches and its decoder."""

from typing import Any, ClassVar

from transformers import AutoConfig, CLIPVisionConfig, ConvNextConfig, LlamaConfig, PreTrainedConfig

from fitprune.errors import FitPruneError

# The towers that the authors' checkpoints name in their config.json, by a part of that name.
CLIP_TOWERS: dict[str, dict[str, Any]] = {
    "clip-vit-large-patch14-336": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
    }
}
CONVNEXT_TOWERS: dict[str, dict[str, Any]] = {
    "convnext_large_mlp": {"depths": [3, 3, 27, 3], "hidden_sizes": [192, 384, 768, 1536], "layer_norm_eps": 1e-6},
    "convnext_xxlarge": {"depths": [3, 4, 30, 3], "hidden_sizes": [384, 768, 1536, 3072], "layer_norm_eps": 1e-5},
}


class LlavaHrVisionConfig(PreTrainedConfig):
    """The two-branch tower; the defaults are those of LLaVA-HR-7B.

    Attributes:
        clip_config: the fast branch. Its layers run in four equal groups.
        convnext_config: the slow branch. Its LayerNorm epsilon counts in every norm; its GELU is always the exact one.
        image_size: side S of the images, in pixels.
        fast_image_size: side of the image as the CLIP branch sees it. None is the authors' rule, max(int(S / 32 * 14), 336),
            which is made for patches of 14 pixels and a ConvNeXt that divides by 32; smaller models state it.
        freeze_vision: the model has no latent adapters between the branches.
    """

    model_type = "llava_hr_vision"
    base_config_key = "vision_config"
    sub_configs: ClassVar = {"clip_config": CLIPVisionConfig, "convnext_config": ConvNextConfig}

    clip_config: Any = None
    convnext_config: Any = None
    image_size: int = 1024
    fast_image_size: Any = None
    freeze_vision: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.clip_config, PreTrainedConfig):
            self.clip_config = CLIPVisionConfig(**(self.clip_config or CLIP_TOWERS["clip-vit-large-patch14-336"]))
        if not isinstance(self.convnext_config, PreTrainedConfig):
            self.convnext_config = ConvNextConfig(**(self.convnext_config or CONVNEXT_TOWERS["convnext_large_mlp"]))
        if self.fast_image_size is None:
            self.fast_image_size = max(int(self.image_size / 32 * 14), 336)
        layers = self.clip_config.num_hidden_layers
        if layers < 4 or layers % 4:
            raise FitPruneError(f"the CLIP branch has {layers} layers; LLaVA-HR runs them in four equal groups.")
        super().__post_init__(**kwargs)

    @property
    def image_tokens(self) -> int:
        """Visual tokens of one image."""
        return (self.fast_image_size // self.clip_config.patch_size) ** 2

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of a picture of so many pixels, the full size or smaller: as many pixels a token."""
        most = self.fast_image_size // self.clip_config.patch_size
        return max(1, round(height * most / self.image_size)), max(1, round(width * most / self.image_size))

    def slow_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which the ConvNeXt sees that picture: smaller ones in whole strides, so that none is cut off."""
        if (height, width) == (self.image_size, self.image_size):
            return height, width
        stride = self.convnext_config.patch_size * 2 ** (len(self.convnext_config.hidden_sizes) - 1)
        return -(-height // stride) * stride, -(-width // stride) * stride


class LlavaHrConfig(PreTrainedConfig):
    """A LLaVA-HR (arXiv 2403.03003): two-branch tower, two-layer projector, text decoder.

    Attributes:
        vision_config: `LlavaHrVisionConfig`.
        text_config: of any decoder that transformers builds from a configuration; a Llama by default.
        image_token_id: the id that stands, once per visual token, in `input_ids`.
        tie_word_embeddings: as everywhere in transformers.
    """

    model_type = "llava_hr"
    sub_configs: ClassVar = {"vision_config": LlavaHrVisionConfig, "text_config": AutoConfig}

    vision_config: Any = None
    text_config: Any = None
    image_token_id: int = 32000
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = LlavaHrVisionConfig(**(self.vision_config or {}))
        if not isinstance(self.text_config, PreTrainedConfig):
            fields = dict(self.text_config or {})
            self.text_config = AutoConfig.for_model(fields.pop("model_type", LlamaConfig.model_type), **fields)
        super().__post_init__(**kwargs)

    @property
    def image_seq_length(self) -> int:
        """Visual tokens of one image."""
        return self.vision_config.image_tokens
