"""The parts of a transformers vision-language model: its decoder, its layers, its vision tower and its image tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fitprune.errors import UnsupportedModel
from fitprune.models.sizes import text_config

# Pre-norm layers of the form x + attention(norm(x)), then x + mlp(norm(x)), or with norms around both: see `joined`. A layer
# class outside this list may scale or reorder these sums, and pruning it as if it did not would be silently wrong.
PRE_NORM_LAYERS = frozenset(
    {
        "Gemma3DecoderLayer",
        "LlamaDecoderLayer",
        "MistralDecoderLayer",
        "Qwen2DecoderLayer",
        "Qwen2_5_VLDecoderLayer",
        "Qwen3DecoderLayer",
        "Qwen3VLTextDecoderLayer",
    }
)

# Models in whose decoder the tokens of an image see one another in both directions.
BOTH_WAYS = frozenset({"gemma3"})

# Models whose videos are pruned. Others are given frames as images, by their processors or not at all.
SEE_VIDEOS = frozenset({"llava_onevision", "qwen2_5_vl", "qwen3_vl"})

# The two kinds of what is seen, and the argument under which a model's forward is given the pixels of each.
PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}

# What models call their vision tower.
TOWERS = ("vision_tower", "visual", "vision_model")


@dataclass(frozen=True)
class ModelParts:
    """The parts of a vision-language model that pruning touches.

    Attributes:
        decoder: the text decoder without its head (its forward takes `inputs_embeds`).
        layers: its decoder layers, in order.
        parent: the module that owns the decoder and sees `input_ids` and `pixel_values`.
        tower: the vision tower, given pixels as its first argument or as `pixel_values`.
        image_token_id: the id in `input_ids` of each visual token. In tiled models it is that of newline tokens, too.
        text_config: the decoder's configuration.
        video_token_id: the same id for videos; None where videos are not pruned.
    """

    decoder: Any
    layers: nn.ModuleList
    parent: Any
    tower: nn.Module
    image_token_id: int
    text_config: Any
    video_token_id: int | None = None

    @property
    def visual_ids(self) -> dict[str, int]:
        """The id of a visual token by what it is of, "image" or "video"."""
        return {"image": self.image_token_id} | ({} if self.video_token_id is None else {"video": self.video_token_id})

    def holds_visual(self, ids: torch.Tensor) -> bool:
        """Whether there is a visual token among these token ids."""
        return any(bool((ids == token).any()) for token in self.visual_ids.values())

    @property
    def newline(self) -> torch.Tensor | None:
        """The embedding (hidden_size,) that tiled models put after each row of patches; None in other models."""
        return getattr(self.parent, "image_newline", None)


def joined(layer: Any, attended: torch.Tensor) -> torch.Tensor:
    """What a layer's attention gave, (…, hidden_size), as it joins the residual stream: Gemma 3 norms it."""
    return layer.post_attention_layernorm(attended) if hasattr(layer, "pre_feedforward_layernorm") else attended


def fed_forward(layer: Any, residual: torch.Tensor) -> torch.Tensor:
    """What a layer's feed-forward network, with the norms around it, adds to the residual stream."""
    if hasattr(layer, "pre_feedforward_layernorm"):
        return layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(residual)))
    return layer.mlp(layer.post_attention_layernorm(residual))


def module_global(module: nn.Module, name: str) -> Any:
    """The global `name` of the file that defines the module's class; None where that file has none.

    It is found through the class, since the file itself may have been taken out of `sys.modules` since.
    """
    return type(module).__init__.__globals__.get(name)


def image_token_id(config: Any) -> int | None:
    """The image token's id in a transformers configuration, or None where there is none."""
    for name in ("image_token_id", "image_token_index"):
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    return None


def has_axes(config: Any) -> bool:
    """Whether position ids have several axes (Qwen2.5-VL's time, height and width)."""
    return "mrope_section" in (getattr(text_config(config), "rope_parameters", None) or {})


def frequencies_vary(decoder: nn.Module) -> bool:
    """Whether a decoder's rotary frequencies depend on the largest position id of a forward."""
    kind = str(getattr(decoder.rotary_emb, "rope_type", ""))
    return "dynamic" in kind or "longrope" in kind


def unwrapped(model: Any) -> Any:
    """The model inside torch's wrappers for training on several devices, which call it as it is."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    return model


def require_whole(model: nn.Module) -> None:
    """Raise UnsupportedModel for a model whose layers are split over devices: each would prune by its own part of the heads."""
    split = next((name for name, weight in model.named_parameters() if hasattr(weight, "device_mesh")), None)
    ways = getattr(model, "tp_size", None) or 1
    if split is not None or ways > 1:
        where = f"{split} is a DTensor" if split is not None else f"tp_size={ways}"
        raise UnsupportedModel(
            f"this model is split over devices ({where}): each would prune by its own heads. Load it without tp_plan, or by "
            "layers with device_map."
        )


def model_parts(model: Any) -> ModelParts:
    """Find the parts of `model`.

    Raises:
        UnsupportedModel: no decoder, no image token, or decoder layers of an unknown form.
    """
    model = unwrapped(model)
    name = type(model).__name__
    config = getattr(model, "config", None)
    token = image_token_id(config) if config is not None else None
    if token is None:
        raise UnsupportedModel(f"{name} has no image token in its configuration; a vision-language model is needed.")
    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) == 0:
        raise UnsupportedModel(f"{name} keeps its decoder layers in an unknown place; expected `.layers` on its decoder.")
    unknown = {type(layer).__name__ for layer in layers} - PRE_NORM_LAYERS
    if unknown:
        raise UnsupportedModel(
            f"{name} has decoder layers of class {', '.join(sorted(unknown))}; known are {', '.join(sorted(PRE_NORM_LAYERS))}."
        )
    parent = next((m for m in model.modules() if any(child is decoder for child in m.children())), None)
    if parent is None:
        raise UnsupportedModel(f"{name} is itself a text decoder; pass the whole vision-language model.")
    tower = next((getattr(parent, part) for part in TOWERS if hasattr(parent, part)), None)
    if tower is None:
        raise UnsupportedModel(f"{name} keeps its vision tower in an unknown place; expected one of {', '.join(TOWERS)}.")
    video = getattr(config, "video_token_id", None) if parent.config.model_type in SEE_VIDEOS else None
    return ModelParts(decoder, layers, parent, tower, token, text_config(config), video)


def visual_mask(parts: ModelParts, prompt: dict[str, Any]) -> torch.Tensor:
    """Which positions of the prompt hold visual tokens, newline tokens included: bool (batch, sequence).

    `prompt` holds the arguments of the parent's forward, or a ready `visual_mask`.

    Raises:
        UnsupportedModel: neither token ids nor embeddings were given.
    """
    if prompt.get("visual_mask") is not None:
        return prompt["visual_mask"]
    images, *videos = (mask_of(parts, prompt, kind) for kind in parts.visual_ids)
    return images | videos[0] if videos else images


def mask_of(parts: ModelParts, prompt: dict[str, Any], kind: str) -> torch.Tensor:
    """Which positions hold the tokens of one kind, "image" or "video"; see `visual_mask`.

    A prompt given as `inputs_embeds` is recognised, as transformers itself does it, by the embedding of the kind's token.
    """
    if prompt.get("input_ids") is not None:
        return prompt["input_ids"] == parts.visual_ids[kind]
    embeds = prompt.get("inputs_embeds")
    if embeds is None:
        raise UnsupportedModel("the model was called with neither input_ids nor inputs_embeds.")
    token = torch.tensor(parts.visual_ids[kind], device=embeds.device)
    return (embeds == parts.parent.get_input_embeddings()(token)).all(-1)


def newline_mask(parts: ModelParts, visual: torch.Tensor, embeds: torch.Tensor | None) -> torch.Tensor:
    """Which of the positions in `visual` (batch, sequence) hold newline tokens: bool (batch, sequence).

    A newline token is recognised in `embeds` (batch, sequence, hidden_size), the decoder's input: it equals the learnt newline
    embedding, whatever the sizes of the images, their tiling and unpadding. No projected patch equals that vector.
    """
    found = torch.zeros_like(visual)
    if parts.newline is None or embeds is None:
        return found
    newline = parts.newline.detach().to(embeds.device)
    # The model rounds the parameter to the type of the features (half precision under autocast, or in a tower of another type
    # than the decoder's), and these to that of the embeddings.
    for dtype in {embeds.dtype, torch.float16, torch.bfloat16}:
        found = found | (embeds == newline.to(dtype).to(embeds.dtype)).all(-1)
    return visual & found


def seen_together(parts: ModelParts, prompt: dict[str, Any], visual: torch.Tensor) -> torch.Tensor | None:
    """Which tokens of a prompt see one another in both directions: LongTensor (batch, T), the number of their image from 1,
    0 for all others; None where none do.

    `prompt` holds the arguments of the parent's forward, or a ready `visual_mask`; `visual` says where images are. A model of
    BOTH_WAYS goes by `token_type_ids`, and takes a prompt without them for text.
    """
    types = prompt.get("token_type_ids")
    if parts.parent.config.model_type not in BOTH_WAYS or (types is None and prompt.get("visual_mask") is None):
        return None
    image = visual if types is None else (types == 1).to(visual.device)
    first = image & ~nn.functional.pad(image, (1, 0))[:, :-1]
    return first.cumsum(1).masked_fill(~image, 0)


def brings(prompt: Mapping[str, Any], kind: str) -> bool:
    """Whether a prompt, the arguments of a model's forward, comes with pixels or features of a kind, "image" or "video"."""
    return prompt.get(PIXELS[kind]) is not None or (prompt.get("mm_encoder_outputs") or {}).get(kind) is not None


def refuse_video(parts: ModelParts, prompt: dict[str, Any]) -> None:
    """Raise UnsupportedModel for a prompt with a video, where only the visual tokens of images are pruned."""
    if parts.video_token_id is None and brings(prompt, "video"):
        raise UnsupportedModel(
            f"this prompt holds a video, and those of {type(parts.parent).__name__} are not pruned: pass its frames as images."
        )
