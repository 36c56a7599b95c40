"""What a method that looks into the vision tower keeps before the decoder, and what that costs, without the model.

Both depend on sizes alone, so the method runs, with its own code, on random features, queries and keys of the model's sizes.
"""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from fitprune import Pruner, Selection
from fitprune.sizes import DecoderSizes, TowerSizes, tower_sizes
from fitprune.view import VisualTokens
from fitprune.vision import Vision


@torch.inference_mode()
def before_decoder(pruner: Pruner, config: Any, visual_tokens: int) -> tuple[int, int]:
    """The number of visual tokens that `pruner` leaves of a prompt of one image; the multiply-accumulates it spends on that.

    The image has as many views as its tokens need, the last one cut off where they are no multiple of a view's.

    Raises:
        UnsupportedModel: a tower of an unknown form.
    """
    sizes, hidden_size = tower_sizes(config), DecoderSizes.of(config).hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        run: Any = _run(pruner, sizes, hidden_size, -(-visual_tokens // sizes.patches))
        places = torch.arange(visual_tokens)[None]
        tokens = VisualTokens(
            hidden=torch.randn(1, visual_tokens, hidden_size),
            position=places,
            original=places,
            total=torch.tensor([visual_tokens]),
            valid=None,
            text_after=torch.zeros(1, visual_tokens, dtype=torch.bool),
            first_row=0,
        )
        tokens.seen = Vision(run, places, tokens.spend)
        choice = pruner.before_layer(0, tokens)
    if choice is None:
        return visual_tokens, tokens.macs
    kept = choice.index >= 0 if isinstance(choice, Selection) else choice
    return int(kept.sum()), tokens.macs


def _run(pruner: Pruner, sizes: TowerSizes, hidden_size: int, views: int) -> SimpleNamespace:
    """What `fitprune.tower.TowerRun` holds after so many views of one image."""
    observed = {layer % sizes.layers for layer in pruner.observed_tower_layers(sizes.layers)}
    shape = (views, sizes.heads, sizes.tokens, sizes.width // sizes.heads)
    layers = [nn.utils.skip_init(nn.Linear, size, hidden_size) for size in (sizes.width, hidden_size)]
    side = math.isqrt(sizes.patches)
    return SimpleNamespace(
        tower=SimpleNamespace(has_cls=sizes.has_cls, layers=range(sizes.layers), projector=nn.Sequential(*layers)),
        grid=(side, side),
        patches=sizes.patches,
        seats=None,
        views=[views],
        features=torch.randn(views, sizes.patches, sizes.width),
        cls_features=torch.randn(views, sizes.width) if sizes.has_cls else None,
        query={layer: torch.randn(shape) for layer in observed},
        key={layer: torch.randn(shape) for layer in observed},
    )
