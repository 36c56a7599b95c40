"""G-Prune, literally, as the authors' code computes it (arXiv 2501.02268): one graph at a time, the matrix to a power."""

import torch


def gprune(features, keep_ratio=0.5, similarity=0.5, temperature=0.03, steps=5):
    """Features (n, d) of one graph → the indices kept, ascending; the scores; and the relative gap at the cut."""
    n = len(features)
    features = features.double()
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            cosine = float(features[i] @ features[j] / (features[i].norm() * features[j].norm()))
            if i == j:
                cosine = 1.0
            scaled = (0.0 if cosine < similarity else cosine) / temperature
            matrix[i, j] = -5000.0 if abs(scaled) < 1e-6 else scaled
    matrix = torch.softmax(matrix, dim=1)
    degree = (matrix > 0).sum(1)
    norms = features.norm(dim=1)
    scores = (norms @ torch.matrix_power(matrix, steps) / degree).tolist()
    count = int(keep_ratio * n + 1e-9)
    order = sorted(range(n), key=lambda i: -scores[i])
    gap = 1 - scores[order[count]] / scores[order[count - 1]] if 0 < count < n else float("inf")
    return sorted(order[:count]), scores, gap
