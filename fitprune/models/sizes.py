"""The sizes of a decoder and of a vision tower on which the cost of pruning depends, read from a configuration."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from fitprune.errors import RecipeError, UnsupportedModel


def text_config(config: Any) -> Any:
    """The decoder's configuration inside a vision-language configuration (or the configuration itself)."""
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


@dataclass(frozen=True)
class DecoderSizes:
    """What identifies a decoder's shape.

    Attributes:
        model_type: of the whole model, as transformers names it ("llava").
        layers, hidden_size, intermediate_size: of its text decoder.
        kv_size: key-value heads × head size.
        q_size: query heads × head size; the hidden size in most models.
    """

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    kv_size: int
    q_size: int

    def __post_init__(self) -> None:
        """Raise a `RecipeError` for what cannot be a size: these are read from files."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            good = isinstance(value, str) if field.name == "model_type" else type(value) is int and value > 0
            if not good:
                raise RecipeError(f"{field.name} cannot be {value!r}.")

    @classmethod
    def of(cls, config: Any) -> "DecoderSizes":
        """Read them from a vision-language model's transformers configuration."""
        text = text_config(config)
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        kv_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        return cls(
            model_type=config.model_type,
            layers=text.num_hidden_layers,
            hidden_size=text.hidden_size,
            intermediate_size=text.intermediate_size,
            kv_size=kv_heads * head,
            q_size=text.num_attention_heads * head,
        )

    def describe(self) -> str:
        """One phrase for an error message."""
        return (
            f"{self.model_type} with {self.layers} layers, hidden size {self.hidden_size}, "
            f"feed-forward size {self.intermediate_size}, query size {self.q_size}, key-value size {self.kv_size}"
        )

    def costs(self) -> dict[str, int]:
        """The arguments that `flops.visual_macs` takes."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "kv_size": self.kv_size,
            "q_size": self.q_size,
        }


@dataclass(frozen=True)
class TowerSizes:
    """The sizes of a vision tower of CLIP's or SigLIP's form.

    Attributes:
        width, layers, heads: of its attention layers.
        patches: of one view; tokens: with [CLS], where the tower has one.
        feature_layer: index of the layer whose output is read.
        projector: multiply-accumulates of one token in a two-layer projector.
        mixes: whether adapters work on the grid of tokens between the layers (LLaVA-HR).
    """

    width: int
    layers: int
    heads: int
    patches: int
    tokens: int
    feature_layer: int
    projector: int
    mixes: bool = False

    @property
    def has_cls(self) -> bool:
        return self.tokens > self.patches


def layer_read(asked: Any) -> int:
    """The tower's layer that a configuration's or a call's `vision_feature_layer` names, alone or in a list of one.

    Raises:
        UnsupportedModel: it names several.
    """
    if isinstance(asked, int):
        return asked
    layers = list(asked)
    if len(layers) != 1:
        raise UnsupportedModel(
            f"vision_feature_layer={layers} reads {len(layers)} layers of the vision tower at once; a method that looks into "
            "the tower needs one. Give one layer, or take a method that works in the decoder."
        )
    return int(layers[0])


def tower_sizes(config: Any) -> TowerSizes:
    """Read them from a vision-language model's transformers configuration.

    Raises:
        UnsupportedModel: a tower of another form.
    """
    vision: Any = getattr(config, "vision_config", None)
    clip = getattr(vision, "clip_config", vision)
    kind, read = getattr(clip, "model_type", None), getattr(config, "vision_feature_layer", -1)
    pools = hasattr(config, "mm_tokens_per_image")  # Gemma 3 makes one token of several patches
    if kind not in ("clip_vision_model", "siglip_vision_model") or read is None or pools:
        raise UnsupportedModel(f"the vision tower of a {config.model_type} model is not of CLIP's or SigLIP's form.")
    read = layer_read(read)
    patches = vision.image_tokens if clip is not vision else (clip.image_size // clip.patch_size) ** 2
    hidden, layers = text_config(config).hidden_size, clip.num_hidden_layers
    return TowerSizes(
        width=clip.hidden_size,
        layers=layers,
        heads=clip.num_attention_heads,
        patches=patches,
        tokens=patches + (clip is vision and kind == "clip_vision_model"),
        feature_layer=read - 1 if read >= 0 else layers + read,
        projector=clip.hidden_size * hidden + hidden**2,
        mixes=clip is not vision,
    )


def visual_tokens(config: Any) -> int | None:
    """Visual tokens of one image where the configuration fixes them, else None (tiled and native-resolution models)."""
    vision: Any = getattr(config, "vision_config", None)
    if hasattr(vision, "image_tokens"):  # a tower that says it itself
        return vision.image_tokens
    if config.model_type != "llava":
        return None
    side = vision.image_size // vision.patch_size
    # CLIP puts a [CLS] token first, SigLIP none; "default" cuts the first token off, "full" does not.
    tokens = side * side + (vision.model_type == "clip_vision_model")
    return tokens - (config.vision_feature_select_strategy == "default")
