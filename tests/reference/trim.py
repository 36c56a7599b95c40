"""TRIM, literally (arXiv 2409.10994; the authors' code), one prompt at a time."""

import math

import numpy as np


def trim(patches, text, share=None):
    """Patches (n, d) and text (d,) in CLIP's space → the patches that stay, ascending; and the gap at the edge of them."""
    product = [-float(patch @ text) for patch in patches]
    powers = [math.exp(value - max(product)) for value in product]
    scores = np.array(powers) / sum(powers)
    if share is None:
        low, high = np.percentile(scores, 25), np.percentile(scores, 75)
        keep = int((scores > high + 1.5 * (high - low)).sum())
    else:
        keep = int(len(scores) * share + 1e-9)
    order = sorted(range(len(scores)), key=lambda patch: -scores[patch])
    gap = scores[order[keep - 1]] / scores[order[keep]] - 1 if 0 < keep < len(order) else math.inf
    return sorted(order[:keep]), gap
