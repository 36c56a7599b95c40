"""Position ids of visual tokens in training: a model that is to be pruned must not read from them where a patch is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LEAST = 8
"""The smallest extent, in ids, of an image."""


def jittered(tokens: int, share: float, rng: np.random.Generator) -> Tensor:
    """Ids of `tokens` visual tokens, counted from the first one's, and of the text after them: float (tokens + 1,), ascending.

    With probability `share` the image takes up 8 to `tokens` ids, evenly or with random gaps, fractions allowed, as what is
    left of it after pruning does when ids are numbered anew; else `tokens` ids, one each.
    """
    chance, extent, even = rng.random(), rng.uniform(LEAST, tokens), rng.random() < 0.5
    gaps = np.ones(tokens) if chance >= share or even else rng.exponential(size=tokens)
    ids = np.concatenate([[0.0], gaps.cumsum()])
    return torch.from_numpy(ids * ((tokens if chance >= share else extent) / ids[-1])).float()
