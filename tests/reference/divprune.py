"""DivPrune, literally: greedy max-min diversity of cosine distances (arXiv 2503.02175, algorithm 1; the authors' code)."""

import torch


def divprune(features, ratio):
    """Features (n, d) of one sample → the indices kept, ascending; and the smallest lead of a pick over what is worse.

    Two tokens that are each other's nearest have the same distance to it; the first of them is picked first.
    """
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
        best = max(scores)
        gap = min(gap, min((best - score for score in scores if score < best), default=gap))
        chosen.append(scores.index(best))
    return sorted(chosen), gap
