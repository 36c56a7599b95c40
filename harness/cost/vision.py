"""The multiply-accumulates of what comes before the decoder: vision tower and projector, family by family.

A family is one entry of `FAMILIES`: a function from the configuration and a batch of processor outputs to the cost of the
batch's images. Of pixels only the shapes are read, so they may lie on the meta device; sizes and grids of images are read
as they are. Attention is counted as in `decoder`; what is not counted is listed in `flops.NOT_COUNTED`.

Errors: UnsupportedModel for a model, tower or input whose arithmetic is not known here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.image_processing_utils import select_best_resolution

from fitprune.errors import UnsupportedModel
from fitprune.interface.trace import TowerCounts
from fitprune.models.parts import SEE_VIDEOS, brings

Inputs = Mapping[str, torch.Tensor]

TOWERS = {"clip_vision_model": 1, "siglip_vision_model": 0, "internvl_vision": 1, "smolvlm_vision": 0}
"""Towers of one form (a convolution, self-attention, an FFN of two matrices), and their tokens before the patches."""


@dataclass(frozen=True)
class VisionCost:
    """Multiply-accumulates by operator; costs of batches add up."""

    vision: Mapping[str, int] = field(default_factory=dict)
    projector: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "VisionCost") -> "VisionCost":
        # Counters, and not their sum, which would leave out operators that cost nothing.
        vision, projector = Counter(self.vision), Counter(self.projector)
        vision.update(other.vision)
        projector.update(other.projector)
        return VisionCost(dict(vision), dict(projector))


def vision_cost(config: Any, inputs: Inputs, ran: TowerCounts | None = None) -> VisionCost:
    """What the images and videos of a batch of processor outputs cost, on a model with this transformers configuration.

    `ran` is what ran in the tower under a method that changed that (`fitprune.Trace.tower`).
    """
    family = require(config.model_type, FAMILIES, "model")
    cost = VisionCost()
    if brings(inputs, "video"):
        if config.model_type not in SEE_VIDEOS:
            raise UnsupportedModel(f"{config.model_type} models are shown no videos: pass their frames as images.")
        if inputs.get("video_grid_thw") is not None:
            cost = family(config, {"image_grid_thw": inputs["video_grid_thw"]})
        else:  # LLaVA-OneVision pools behind the projector
            cost = _tiles_cost(config, inputs["pixel_values_videos"].shape[:2].numel())
    if inputs.get("pixel_values") is None:
        return cost
    return cost + (family(config, inputs) if ran is None else _changed(config, ran))


def _changed(config: Any, ran: TowerCounts) -> VisionCost:
    """A tower that was given other pictures, or merged tokens on its way."""
    if config.model_type == "llava_hr":
        return VisionCost(*llava_hr_macs(config, ran.views, ran.pixels))
    tower, patch = config.vision_config, config.vision_config.patch_size
    patches = (ran.pixels[0] // patch) * (ran.pixels[1] // patch)
    pairs = sum(tokens**2 for tokens in ran.attended)
    counts = patches * tower.num_channels * patch**2, sum(ran.attended), pairs, sum(ran.fed)
    macs = _transformer(tower, *(ran.views * count for count in counts))
    return VisionCost(macs, {"linear": ran.views * ran.projected * _two_layers(tower.hidden_size, config)})


def _transformer(tower: Any, values: int, attended: int, pairs: int, fed: int, matrices: int = 2) -> dict[str, int]:
    """MACs of a transformer tower by operator.

    Args:
        values: pixel values that its convolution reads.
        attended, fed: tokens, added up over layers, that take part in attention, and in an FFN of so many `matrices`.
        pairs: of tokens that attend to one another, added up over layers.
    """
    width = tower.hidden_size
    return {
        "convolution": values * width,
        "qkv": attended * 3 * width**2,
        "attention": 2 * pairs * width,
        "output": attended * width**2,
        "ffn": fed * matrices * width * tower.intermediate_size,
    }


def one_size_cost(config: Any, images: int) -> VisionCost:
    """What so many images cost on a model that brings all of them to one size: see `ONE_SIZE`."""
    if config.model_type in FAMILIES and config.model_type not in ONE_SIZE:
        raise UnsupportedModel(
            f"what an image costs on a {config.model_type} model depends on its size; pass vision=vision_cost(config, inputs)."
        )
    return require(config.model_type, ONE_SIZE, "model")(config, images)


def _one_size(config: Any, inputs: Inputs) -> VisionCost:
    pixels = inputs["pixel_values"]
    if pixels.ndim != 4:
        raise UnsupportedModel(f"pixel_values must be (images, channels, height, width), got {tuple(pixels.shape)}")
    return one_size_cost(config, len(pixels))


def _llava_hr(config: Any, images: int) -> VisionCost:
    return VisionCost(*llava_hr_macs(config, images))


def _anyres(config: Any, inputs: Inputs) -> VisionCost:
    """LLaVA-NeXT and LLaVA-OneVision: the whole image and its tiles, each through the tower and the projector.

    The padding to the most tiles of a batch is cut off before the tower; that of an image inside its tiles after the projector.
    LLaVA-OneVision cuts tiles only where an image is its prompt's only one.
    """
    sizes = inputs["image_sizes"].tolist()
    per_prompt = inputs.get("batch_num_images")
    alone = [True] * len(sizes) if per_prompt is None else [n == 1 for n in per_prompt.tolist() for _ in range(n)]
    side = config.vision_config.image_size
    tiles = 0
    for size, tiled in zip(sizes, alone, strict=True):
        height, width = select_best_resolution(size, config.image_grid_pinpoints) if tiled else (0, 0)
        tiles += 1 + (height // side) * (width // side)
    return _tiles_cost(config, tiles)


def _tiles_cost(config: Any, tiles: int) -> VisionCost:
    """`tiles` images of the tower's size, and the two-layer projector on each token but those that are not selected."""
    tower = config.vision_config
    macs = tower_macs(tower, tiles)
    # The strategy `default` leaves the first token behind: [CLS], where the tower has one.
    tokens = tiles * (_tower_tokens(tower) - (config.vision_feature_select_strategy == "default"))
    layers = config.vision_feature_layer
    features = tower.hidden_size * (1 if isinstance(layers, int) else len(layers))
    return VisionCost(macs, {"linear": tokens * _two_layers(features, config)})


def _internvl(config: Any, inputs: Inputs) -> VisionCost:
    """InternVL: tiles of the tower's size; squares of patches are shuffled into one token each before the projector."""
    tower, tiles = config.vision_config, len(inputs["pixel_values"])
    merged = round(1 / config.downsample_ratio) ** 2
    tokens = tiles * (_tower_tokens(tower) - 1) // merged
    return VisionCost(tower_macs(tower, tiles), {"linear": tokens * _two_layers(tower.hidden_size * merged, config)})


def _gemma3(config: Any, images: int) -> VisionCost:
    """Gemma 3: every image of the tower's size; its patches are pooled, and each pool goes through one matrix."""
    tokens = images * config.mm_tokens_per_image
    linear = tokens * config.vision_config.hidden_size * config.get_text_config().hidden_size
    return VisionCost(tower_macs(config.vision_config, images), {"linear": linear})


def _smolvlm(config: Any, inputs: Inputs) -> VisionCost:
    """SmolVLM: tiles of the tower's size, but for the empty ones of a batch; squares of patches become one token each."""
    tower, mask, merged = config.vision_config, inputs.get("pixel_attention_mask"), config.scale_factor**2
    tiles = inputs["pixel_values"].shape[:2].numel() if mask is None else int(mask.flatten(2).any(2).sum())
    tokens = tiles * _tower_tokens(tower) // merged
    linear = tokens * tower.hidden_size * merged * config.get_text_config().hidden_size
    return VisionCost(tower_macs(tower, tiles), {"linear": linear})


def _two_layers(features: int, config: Any) -> int:
    hidden = config.get_text_config().hidden_size
    return features * hidden + hidden**2


def _qwen2_5_vl(config: Any, inputs: Inputs) -> VisionCost:
    """Qwen2.5-VL: images of any size, attention in windows but for a few layers, a gated FFN; the merger as projector.

    A frame attends to itself alone; windows at the lower and right edge are as small as what is left there.
    """
    tower = config.vision_config
    layers, merge = tower.depth, tower.spatial_merge_size
    side = tower.window_size // merge // tower.patch_size
    patches = full = windowed = 0
    for frames, height, columns in inputs["image_grid_thw"].tolist():
        patches += frames * height * columns
        full += frames * (height * columns) ** 2
        windowed += frames * merge**4 * _squares(height // merge, side) * _squares(columns // merge, side)
    everywhere = len(set(tower.fullatt_block_indexes) & set(range(layers)))
    pairs = everywhere * full + (layers - everywhere) * windowed
    return _native(tower, patches, pairs, matrices=3, mergers=1)


def _qwen3_vl(config: Any, inputs: Inputs) -> VisionCost:
    """Qwen3-VL: images of any size, each frame attends to itself alone; one merger more for each layer that DeepStack reads."""
    tower = config.vision_config
    grids = inputs["image_grid_thw"].tolist()
    patches = sum(frames * height * columns for frames, height, columns in grids)
    pairs = tower.depth * sum(frames * (height * columns) ** 2 for frames, height, columns in grids)
    return _native(tower, patches, pairs, matrices=2, mergers=1 + len(tower.deepstack_visual_indexes))


def _native(tower: Any, patches: int, pairs: int, matrices: int, mergers: int) -> VisionCost:
    """A tower of Qwen's, in whose layers `pairs` of patches attend to one another, with an FFN of so many matrices."""
    values, merge = tower.in_channels * tower.temporal_patch_size * tower.patch_size**2, tower.spatial_merge_size
    vision = _transformer(tower, patches * values, tower.depth * patches, pairs, tower.depth * patches, matrices)
    merged = tower.hidden_size * merge**2
    return VisionCost(vision, {"linear": mergers * patches // merge**2 * (merged**2 + merged * tower.out_hidden_size)})


def _squares(length: int, side: int) -> int:
    """The sum of the squares of the pieces of `length` when it is cut into pieces of `side`."""
    whole, rest = divmod(length, side)
    return whole * side**2 + rest**2


def tower_macs(tower: Any, images: int) -> dict[str, int]:
    """MACs of one of `TOWERS` for `images` images of its size.

    All layers are counted, also those above `vision_feature_layer`, whose output LLaVA does not read: transformers runs
    them. A SigLIP tower with a pooling head runs that too.
    """
    tokens, width = _tower_tokens(tower), tower.hidden_size
    tall, wide = _both(tower.patch_size)
    values = (tokens - TOWERS[tower.model_type]) * tower.num_channels * tall * wide
    runs = images * tower.num_hidden_layers * tokens
    macs = _transformer(tower, images * values, runs, runs * tokens, runs)
    if getattr(tower, "vision_use_head", False):
        # One learnt query attends to all tokens, then an FFN of two matrices.
        attention = (2 * tokens + 2) * width**2 + 2 * tokens * width
        macs["head"] = images * (attention + 2 * width * tower.intermediate_size)
    return macs


def llava_hr_macs(config: Any, images: int, size: tuple[int, int] | None = None) -> tuple[dict[str, int], dict[str, int]]:
    """What so many images cost on LLaVA-HR, of `size` (height, width) or the model's own: MACs by operator, of the tower and of
    the projector.

    A CLIP sees the image small, a ConvNeXt sees it large; three latent adapters mix the second's features into the first's
    between groups of its layers, and two linear layers add them up at the end (arXiv 2403.03003).
    """
    tower = config.vision_config
    clip, convnext = tower.clip_config, tower.convnext_config
    size = size or (tower.image_size, tower.image_size)
    rows, columns = tower.grid(*size)
    tokens, slow = rows * columns, tower.slow_size(*size)
    # Patches only: [CLS] is cut off before the first layer.
    runs = clip.num_hidden_layers * tokens
    fast = _transformer(clip, tokens * clip.num_channels * clip.patch_size**2, runs, runs * tokens, runs)
    vision = fast | {"convnext": _convnext(convnext, slow)} | _mixing(tower, tokens, slow)
    hidden = config.get_text_config().hidden_size
    projector = {"linear": tokens * (clip.hidden_size * hidden + hidden**2)}
    return {name: images * macs for name, macs in vision.items()}, {name: images * macs for name, macs in projector.items()}


def _convnext(convnext: Any, size: tuple[int, int]) -> int:
    """LLaVA-HR's slow branch: a stem, and stages of depthwise 7×7 convolutions with FFNs four times as wide."""
    tall, wide = (side // convnext.patch_size for side in size)
    before, macs = convnext.num_channels, 0
    for stage, (depth, width) in enumerate(zip(convnext.depths, convnext.hidden_sizes, strict=True)):
        kernel = convnext.patch_size if stage == 0 else 2
        if stage:
            tall, wide = tall // 2, wide // 2
        macs += tall * wide * (kernel**2 * before * width + depth * (49 * width + 8 * width**2))
        before = width
    return macs


def _mixing(tower: Any, tokens: int, size: tuple[int, int]) -> dict[str, int]:
    """LLaVA-HR's latent adapters, none where the towers were frozen in training, and the final alignment."""
    fast, slow = tower.clip_config.hidden_size, tower.convnext_config.hidden_sizes[-1]
    stages = len(tower.convnext_config.hidden_sizes)
    tall, wide = (side // tower.convnext_config.patch_size // 2 ** (stages - 1) for side in size)
    gate = 2 * fast * (fast // 2) + fast // 2
    adapter = tall * wide * (slow**2 + slow * fast) + tokens * (49 * fast + fast**2) + gate
    return {"adapters": 0 if tower.freeze_vision else 3 * adapter, "alignment": tokens * (fast**2 + slow * fast)}


def _tower_tokens(tower: Any) -> int:
    """Tokens of one image in the tower: one per patch, and those before the patches."""
    before = require(tower.model_type, TOWERS, "vision tower")
    (height, width), (tall, wide) = _both(tower.image_size), _both(tower.patch_size)
    return (height // tall) * (width // wide) + before


def _both(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def require(kind: str, known: Mapping[str, Any], what: str) -> Any:
    """The entry of `kind`, or the error that names what is known."""
    if kind not in known:
        raise UnsupportedModel(f"cannot count the FLOPs of the {what} '{kind}'; known: {', '.join(sorted(known))}")
    return known[kind]


FAMILIES: dict[str, Callable[[Any, Inputs], VisionCost]] = {
    "llava": _one_size,
    "llava_hr": _one_size,
    "llava_next": _anyres,
    "llava_onevision": _anyres,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "gemma3": _one_size,
}

ONE_SIZE: dict[str, Callable[[Any, int], VisionCost]] = {"llava": _tiles_cost, "llava_hr": _llava_hr, "gemma3": _gemma3}
"""The families whose images all cost the same, and what so many of them cost."""
