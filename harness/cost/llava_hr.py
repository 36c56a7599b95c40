"""The multiply-accumulates of LLaVA-HR's two-branch tower and its projector, by arithmetic on the configuration.

A CLIP sees the image small, a ConvNeXt sees it large; three latent adapters mix the second's features into the first's
between groups of its layers, and two linear layers add them up at the end (arXiv 2403.03003).
"""

from typing import Any


def llava_hr_macs(config: Any, images: int, size: tuple[int, int] | None = None) -> tuple[dict[str, int], dict[str, int]]:
    """What so many images cost, of `size` (height, width) or the model's own: MACs by operator, of the tower and of the
    projector.
    """
    tower = config.vision_config
    clip, convnext = tower.clip_config, tower.convnext_config
    size = size or (tower.image_size, tower.image_size)
    rows, columns = tower.grid(*size)
    tokens, slow = rows * columns, tower.slow_size(*size)
    vision = _clip(clip, tokens) | _convnext(convnext, slow) | _mixing(tower, tokens, slow)
    hidden = config.get_text_config().hidden_size
    projector = {"linear": tokens * (clip.hidden_size * hidden + hidden**2)}
    return {name: images * macs for name, macs in vision.items()}, {name: images * macs for name, macs in projector.items()}


def _clip(clip: Any, tokens: int) -> dict[str, int]:
    """The fast branch: patches only, [CLS] is cut off before the first layer."""
    width, layers = clip.hidden_size, clip.num_hidden_layers
    return {
        "convolution": tokens * clip.num_channels * clip.patch_size**2 * width,
        "qkv": layers * tokens * 3 * width**2,
        "attention": layers * 2 * tokens**2 * width,
        "output": layers * tokens * width**2,
        "ffn": layers * tokens * 2 * width * clip.intermediate_size,
    }


def _convnext(convnext: Any, size: tuple[int, int]) -> dict[str, int]:
    """The slow branch: a stem, and stages of depthwise 7×7 convolutions with FFNs four times as wide."""
    tall, wide = (side // convnext.patch_size for side in size)
    before, macs = convnext.num_channels, 0
    for stage, (depth, width) in enumerate(zip(convnext.depths, convnext.hidden_sizes, strict=True)):
        kernel = convnext.patch_size if stage == 0 else 2
        if stage:
            tall, wide = tall // 2, wide // 2
        macs += tall * wide * (kernel**2 * before * width + depth * (49 * width + 8 * width**2))
        before = width
    return {"convnext": macs}


def _mixing(tower: Any, tokens: int, size: tuple[int, int]) -> dict[str, int]:
    """Latent adapters, none where the towers were frozen in training, and the final alignment."""
    fast, slow = tower.clip_config.hidden_size, tower.convnext_config.hidden_sizes[-1]
    stages = len(tower.convnext_config.hidden_sizes)
    tall, wide = (side // tower.convnext_config.patch_size // 2 ** (stages - 1) for side in size)
    places = tall * wide
    gate = 2 * fast * (fast // 2) + fast // 2
    adapter = places * (slow**2 + slow * fast) + tokens * (49 * fast + fast**2) + gate
    return {"adapters": 0 if tower.freeze_vision else 3 * adapter, "alignment": tokens * (fast**2 + slow * fast)}
