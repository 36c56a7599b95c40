"""EVS, literally: the first frame, and of the others the patches least like those at their place in the frame before."""

import math

import torch


def evs(features, frames, rate):
    """Features (n, d) of one video → the tokens kept, ascending; the gap between the last that stays and the first to go."""
    n = len(features)
    each, kept, change = n // frames, list(range(n // frames)), {}
    for token in range(each, n):
        here, before = features[token].double(), features[token - each].double()
        change[token] = 1 - float(torch.dot(here, before) / (here.norm() * before.norm()))
    order = sorted(change, key=lambda token: (-change[token], token))
    more = max(each, int(n * (1 - rate))) - each
    gap = change[order[more - 1]] - change[order[more]] if 0 < more < len(order) else math.inf
    return sorted(kept + order[:more]), gap
