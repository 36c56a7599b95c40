"""HiPrune, literally (arXiv 2508.00553; the authors' code): one view, one anchor, one neighbour at a time."""

import math

import torch


def received(query, key, heads):
    """`query`, `key` (tokens, C) of one view → what each token receives, mean over heads and over the rows of all tokens."""
    width, total = query.shape[-1] // heads, [0.0] * len(key)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        rows = torch.softmax(query[:, part] @ key[:, part].T / math.sqrt(width), -1).mean(0)
        total = [one + float(two) / heads for one, two in zip(total, rows, strict=True)]
    return total


def hiprune(shallow, deep, there, keep, alpha, width):
    """Attention (P,) received in two layers, `there` the patches in the prompt → the patches of a view that stay, ascending."""
    patches = len(shallow)
    anchors = sorted(there, key=lambda patch: -shallow[patch])[: round(keep * alpha / 5)]
    near = set()
    for anchor in anchors:
        for step in (0, -1, 1, -width, width):
            near.add(min(max(anchor + step, 0), patches - 1))
    near &= set(there)
    # Where these are more than stay, the authors' code fails.
    chosen = (anchors + sorted(near - set(anchors), key=lambda patch: -deep[patch]))[:keep]
    rest = sorted(set(there) - set(chosen), key=lambda patch: (-deep[patch], patch))
    return sorted(chosen + rest[: keep - len(chosen)])
