"""DivPrune, literally: greedy max-min diversity of cosine distances (arXiv 2503.02175, algorithm 1; the authors' code)."""

import torch


def divprune(features, ratio):
    """Features (n, d) of one sample → the indices kept, ascending; and the smallest gap of a pick to the second best."""
    n = len(features)
    count = round(ratio * n)
    unit = features / features.norm(dim=1, keepdim=True)
    distance = [[1.0 - float(unit[i] @ unit[j]) for j in range(n)] for i in range(n)]
    chosen, gap = [], float("inf")
    for step in range(count):
        if step == 0:
            # The second smallest of each token's distances; the smallest is its own.
            scores = [torch.tensor(distance[j]).sort().values[1].item() for j in range(n)]
        else:
            scores = [min(distance[i][j] for i in chosen) for j in range(n)]
        best, second = sorted(scores, reverse=True)[:2]
        gap = min(gap, best - second)
        chosen.append(scores.index(best))
    return sorted(chosen), gap
