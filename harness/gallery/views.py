"""Where the visual tokens of a prompt lie in its picture, and that picture as the model sees it."""

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from harness.models.families.anyres import best_resolution, unpadded

if TYPE_CHECKING:
    import torch

    from harness.models.loading import LoadedModel

SIDE = 336  # pixels of a picture's longer side in a gallery, at most


@dataclass(frozen=True)
class View:
    """A picture whose patches are visual tokens, row by row, after those of the views before it.

    Attributes:
        label: what it is, for people.
        columns, rows: of its grid of patches; the last row may be short where places are not known.
        picture: PNG as a data URI; empty where the tokens' places in the picture are not known.
    """

    label: str
    columns: int
    rows: int
    picture: str


def views_of(loaded: "LoadedModel", inputs: "Mapping[str, torch.Tensor]", tokens: int) -> list[View]:
    """The views of a one-sample batch with `tokens` visual tokens, newlines not counted, in prompt order.

    One view and one picture per prompt: LLaVA-1.5 and LLaVA-HR have one grid; LLaVA-NeXT a base view, then its tiles put
    together with the padding cut off. Of other layouts only the order of the tokens is known, and the view says so.
    """
    pixels = inputs.get("pixel_values")
    if pixels is not None and pixels.ndim == 4 and len(pixels) == 1:
        return _one_grid(loaded, pixels[0], tokens) or _order_only(tokens)
    if pixels is not None and pixels.ndim == 5 and len(pixels) == 1 and "image_sizes" in inputs:
        return _base_and_tiles(loaded, pixels[0], inputs["image_sizes"][0].tolist(), tokens) or _order_only(tokens)
    return _order_only(tokens)


def _one_grid(loaded: "LoadedModel", pixels: "torch.Tensor", tokens: int) -> list[View]:
    side = math.isqrt(tokens)
    return [View("the model's view", side, side, _picture(loaded, pixels))] if side * side == tokens else []


def _base_and_tiles(loaded: "LoadedModel", tiles: "torch.Tensor", size: list[int], tokens: int) -> list[View]:
    config: Any = loaded.model.config
    pinpoints = getattr(config, "image_grid_pinpoints", None)
    if config.model_type != "llava_next" or not pinpoints:
        return []
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    height, width = size
    tall, wide = best_resolution(width, height, [(tall, wide) for tall, wide in pinpoints])
    columns, rows = unpadded(width, height, wide // patch, tall // patch)
    base = side // patch
    if base * base + columns * rows != tokens or 1 + (wide // side) * (tall // side) > len(tiles):
        return []
    stitched = _stitch(tiles[1:], wide // side, tall // side)
    left, top = (wide // patch - columns) // 2 * patch, (tall // patch - rows) // 2 * patch
    seen = stitched[:, top : top + rows * patch, left : left + columns * patch]
    label = f"{wide // side} × {tall // side} tiles, padding cut off"
    return [View("base view", base, base, _picture(loaded, tiles[0])), View(label, columns, rows, _picture(loaded, seen))]


def _stitch(tiles: "torch.Tensor", across: int, down: int) -> "torch.Tensor":
    """(tiles, channels, side, side), row by row, as one (channels, height, width)."""
    channels, side = tiles.shape[1], tiles.shape[-1]
    grid = tiles[: across * down].reshape(down, across, channels, side, side)
    return grid.permute(2, 0, 3, 1, 4).reshape(channels, down * side, across * side)


def _order_only(tokens: int) -> list[View]:
    columns = max(1, math.ceil(math.sqrt(tokens)))
    label = "tokens in prompt order; their places in the picture are not known"
    return [View(label, columns, math.ceil(tokens / columns), "")] if tokens else []


def _picture(loaded: "LoadedModel", pixels: "torch.Tensor") -> str:
    """The processor's (channels, height, width) values as the picture that they stand for."""
    processor: Any = loaded.processor
    mean, deviation = (
        np.array(getattr(processor.image_processor, name), dtype=np.float32)[:, None, None]
        for name in ("image_mean", "image_std")
    )
    values = pixels.detach().float().cpu().numpy() * deviation + mean
    image = Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0))
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
