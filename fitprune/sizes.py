"""The sizes of a decoder that its pruning cost depends on."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from fitprune.anatomy import text_config


@dataclass(frozen=True)
class DecoderSizes:
    """What identifies a decoder's shape.

    Attributes:
        model_type: of the whole model, as transformers names it ("llava").
        layers, hidden_size, intermediate_size: of its text decoder.
        kv_size: key-value heads × head size.
    """

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    kv_size: int

    @classmethod
    def of(cls, config: Any) -> "DecoderSizes":
        """Read them from a vision-language model's transformers configuration."""
        text = text_config(config)
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        kv_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        return cls(config.model_type, text.num_hidden_layers, text.hidden_size, text.intermediate_size, kv_heads * head)

    def describe(self) -> str:
        """One phrase for an error message."""
        return (
            f"{self.model_type} with {self.layers} layers, hidden size {self.hidden_size}, "
            f"feed-forward size {self.intermediate_size}, key-value size {self.kv_size}"
        )

    def costs(self) -> dict[str, int]:
        """The arguments that `flops.visual_macs` takes."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name in ("hidden_size", "intermediate_size", "kv_size")
        }


def visual_tokens(config: Any) -> int | None:
    """Visual tokens of one image where the configuration fixes them, else None (tiled and native-resolution models)."""
    if config.model_type != "llava":
        return None
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    return side * side + (config.vision_feature_select_strategy == "full")
