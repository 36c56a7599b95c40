"""From the tokens that each sample keeps to one recipe: the mean curve of shares left, scaled to meet a budget."""

from collections.abc import Callable

import numpy as np


def mean_curve(visual_tokens: np.ndarray, left: np.ndarray, stop: int) -> np.ndarray:
    """Mean share of the visual tokens left after each layer, (layers,), when pruning stops before layer `stop`.

    Args:
        visual_tokens: (samples,) tokens of each prompt; left: (samples, layers) tokens left after each layer.
        stop: nothing more is dropped from this layer on.
    """
    entered = np.concatenate([visual_tokens[:, None], left], 1)
    frozen = entered[:, np.minimum(np.arange(1, entered.shape[1]), stop)]
    return (frozen / visual_tokens[:, None]).mean(0)


def scaled(curve: np.ndarray, scale: float, visual_tokens: int) -> list[int]:
    """Drop counts of a curve of shares left (layers,), its distance from 1 scaled, rounded to whole tokens."""
    left = np.rint(visual_tokens * (1 - scale * (1 - curve)).clip(min=0)).astype(int)
    return [int(count) for count in -np.diff(left, prepend=visual_tokens)]


def smallest_scale(fits: Callable[[float], bool]) -> float:
    """The smallest scale in (0, 2] at which `fits` is true, to 2⁻³⁹, given that it is true from there on."""
    small, large = 0.0, 2.0
    for _ in range(40):
        scale = (small + large) / 2
        small, large = (small, scale) if fits(scale) else (scale, large)
    return large
