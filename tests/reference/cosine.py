"""vLLM's cosine control, literally: the tokens of least mean cosine to the others."""

import math


def cosine(features, rate):
    """Features (n, d) of one prompt → the tokens kept, ascending; the gap between the last that stays and the first to go."""
    n, unit = len(features), features.double() / features.double().norm(dim=1, keepdim=True)
    alike = [sum(float(unit[i] @ unit[j]) for j in range(n) if j != i) / max(n - 1, 1) for i in range(n)]
    keep = max(1, n - math.ceil(round(rate * n, 9)))
    order = sorted(range(n), key=lambda token: alike[token])
    gap = alike[order[keep]] - alike[order[keep - 1]] if keep < n else math.inf
    return sorted(order[:keep]), gap
