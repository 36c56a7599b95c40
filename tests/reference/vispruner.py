"""VisPruner, literally: part of the tokens by [CLS] attention, the rest by removing duplicates, eight in a round."""

import math


def cosine(a, b):
    """Of two lists of numbers."""
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def vispruner(score, features, keep, important_ratio, views=1, per_round=8):
    """`score` (n,), `features` (n, C): of one sample with so many views, each of which loses `per_round` tokens at a
    time. Gives the `keep` tokens that stay, ascending."""
    score, features = score.tolist(), features.tolist()
    by_attention = sorted(range(len(score)), key=lambda token: -score[token])
    important = int(keep * important_ratio)
    diverse = keep - important
    residual = by_attention[important:]
    if diverse == 0:
        residual = []
    while len(residual) > diverse:
        evens, odds = residual[0::2], residual[1::2]
        drop = min(per_round * views, len(residual) - diverse, len(evens))
        alike = {even: max(cosine(features[even], features[odd]) for odd in odds) for even in evens}
        evens.sort(key=lambda even: -alike[even])
        residual = evens[drop:] + odds
    return sorted(by_attention[:important] + residual)
