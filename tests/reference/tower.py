"""What a vision tower made of one sample's images, read off its own modules by hooks, in plain loops and float64."""

import math
from dataclasses import dataclass, field

import torch
from transformers.image_processing_utils import select_best_resolution

from .families import grid


@dataclass
class Seen:
    """Of one sample; P patches a view.

    `views`: (views, P, C) features that go into the projector; `cls`: a list of (C,) per view, or None. `token`: per visual
    token of the prompt, (view, patch). `first`: per view, the first view of its image. `query`, `key`: by layer, (views,
    tokens, C), as the projections give them.
    """

    views: torch.Tensor
    cls: list | None
    token: list
    first: list
    heads: int
    query: dict = field(default_factory=dict)
    key: dict = field(default_factory=dict)

    def features(self):
        """(n, C), of the prompt's visual tokens."""
        return torch.stack([self.views[view, patch] for view, patch in self.token])

    def keys(self, layer, mean=True):
        """(n, C / heads), the mean over heads; or (n, C)."""
        skip = int(self.cls is not None)
        keys = torch.stack([self.key[layer][view, skip + patch] for view, patch in self.token])
        return keys.view(len(keys), self.heads, -1).mean(1) if mean else keys

    def attention(self, layer, heads=None):
        """(heads, n): what [CLS] pays to each token of its view; in a tower without, the mean that the patches pay."""
        heads = heads or self.heads
        maps = torch.stack([self.map(layer, view, heads) for view in range(len(self.views))])
        return torch.stack([maps[view, :, patch] for view, patch in self.token], 1)

    def map(self, layer, view, heads):
        """(heads, P) of one view."""
        query, key = self.query[layer][view], self.key[layer][view]
        width = query.shape[-1] // heads
        rows = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            asking = query[:1, part] if self.cls is not None else query[:, part]
            weights = torch.softmax(asking @ key[:, part].T / math.sqrt(width), -1).mean(0)
            rows.append(weights[1:] if self.cls is not None else weights)
        return torch.stack(rows)


def look(model, inputs, layers):
    """Run the tower on the images of one unpadded sample, watching `layers` (0-based)."""
    body, tower = model.model, model.model.vision_tower
    encoder = tower.fast.encoder if hasattr(tower, "fast") else tower.encoder
    pixels, token, first = _views(model.config, inputs)
    caught, hooks = {}, []

    def catch(layer, part):
        def hook(module, args, output):
            caught[layer, part] = output.detach().double()

        return hook

    for layer in layers:
        for part in ("q_proj", "k_proj"):
            hooks.append(getattr(encoder.layers[layer].self_attn, part).register_forward_hook(catch(layer, part)))
    with torch.no_grad():
        if hasattr(tower, "fast"):
            features, cls = tower(pixels), None
        else:
            whole = tower(pixels, output_hidden_states=True).hidden_states[body.config.vision_feature_layer]
            features, cls = whole[:, 1:], list(whole[:, 0].double())
    for hook in hooks:
        hook.remove()
    seen = Seen(features.double(), cls, token, first, encoder.layers[0].self_attn.num_heads)
    seen.query = {layer: caught[layer, "q_proj"] for layer in layers}
    seen.key = {layer: caught[layer, "k_proj"] for layer in layers}
    return seen


def _views(config, inputs):
    """Pixels (views, 3, h, w); (view, patch) of each visual token; per view, the first view of its image."""
    pixels = inputs["pixel_values"]
    if pixels.ndim == 4:
        patches = _patches(config)
        token = [(view, patch) for view in range(len(pixels)) for patch in range(patches)]
        return pixels, token, list(range(len(pixels)))
    tile, side = config.vision_config.image_size, config.vision_config.image_size // config.vision_config.patch_size
    kept, token, first = [], [], []
    for own, size in zip(pixels, inputs["image_sizes"].tolist(), strict=True):
        height, width = select_best_resolution(size, config.image_grid_pinpoints)
        down, across = height // tile, width // tile
        base = len(first)
        kept.append(own[: 1 + down * across])
        first += [base] * (1 + down * across)
        token += [(base, patch) for patch in range(side**2)]
        rows, columns = grid(size, config.image_grid_pinpoints, tile, side)
        above, before = (down * side - rows) // 2, (across * side - columns) // 2
        for row in range(above, above + rows):
            for column in range(before, before + columns):
                view = base + 1 + row // side * across + column // side
                token.append((view, row % side * side + column % side))
    return torch.cat(kept), token, first


def _patches(config):
    vision = config.vision_config
    return vision.image_tokens if hasattr(vision, "image_tokens") else (vision.image_size // vision.patch_size) ** 2
