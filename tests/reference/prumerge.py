"""LLaVA-PruMerge and PruMerge+, literally: outliers of [CLS] attention, an even stride, and weighted sums of neighbours."""

import numpy as np
import torch

from .vispruner import cosine

NEIGHBOURS = 32


def adaptive_ratio(attention):
    """The share of (n,) values above the upper quartile plus one and a half interquartile ranges."""
    values = attention.double().numpy()
    lower, upper = np.percentile(values, 25), np.percentile(values, 75)
    return float((values > upper + 1.5 * (upper - lower)).sum() / len(values))


def adaptive_choice(attention, plus):
    """The tokens that stay, in the authors' order: by attention, then the stride; at least one, and a stride of at least 1."""
    n = len(attention)
    ratio = adaptive_ratio(attention) or 1 / n
    count = max(1, int(n * ratio))
    by_attention = sorted(range(n), key=lambda token: -float(attention[token]))
    kept = by_attention[:count]
    if plus:
        step = max(1, int(int(1 / ratio) / 3))
        kept = kept + [token for token in range(0, n - 1, step) if token not in kept]
    return kept


def given_choice(attention, kept, spaced):
    """`kept` tokens: `spaced` of them evenly over the prompt, the others those of the rest with the most attention."""
    n = len(attention)
    even = [place * n // spaced for place in range(spaced)]
    rest = sorted((token for token in range(n) if token not in even), key=lambda token: -float(attention[token]))
    return rest[: kept - spaced] + even


def merge(attention, keys, features, kept):
    """What the kept tokens become, (len(kept) + 1, C): with their neighbours; last, the sum of all that went, if any did."""
    n = len(attention)
    unit = keys.tolist()
    rows = []
    for token in kept:
        others = [other for other in range(n) if other != token]
        others.sort(key=lambda other: -cosine(unit[token], unit[other]))
        row = features[token].clone()
        for other in others[:NEIGHBOURS]:
            row += attention[other] * features[other]
        rows.append(row)
    gone = [token for token in range(n) if token not in kept]
    if gone:
        rows.append(sum(attention[token] * features[token] for token in gone))
    return torch.stack(rows)
