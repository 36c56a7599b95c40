"""CDPruner, literally: greedy choice by determinants, each worked out anew (arXiv 2506.10967; OpenVINO's form)."""

import math

import torch


def relevance_of_embeddings(features, texts):
    """Features (n, d) of visual, texts (m, d) of text tokens → the mean cosine of each visual token to the text."""
    unit = [row / row.norm() for row in features.double()]
    words = [row / row.norm() for row in texts.double()]
    return [sum(float(one @ word) for word in words) / len(words) for one in unit]


def weights(relevance, theta, least=1e-6):
    """What the relevance of each token weighs in the kernel."""
    low, high = min(relevance), max(relevance)
    scaled = [(value - low) / (high - low + least) for value in relevance]
    if theta == 1:
        return scaled
    return [math.exp(value * theta / (2 * (1 - theta))) if theta else 1.0 for value in scaled]


def cdpruner(features, weight, count):
    """Features (n, d) and weights (n,) → the tokens chosen, ascending; and by how much, relatively, each was the best.

    Lead is infinite where the rank is used up: then tokens follow by weight.
    """
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    rows = unit * torch.tensor(weight, dtype=torch.double)[:, None]
    kernel = rows @ rows.T
    chosen, lead, top = [], math.inf, float(kernel.diagonal().max())
    for _ in range(count):
        gains = {}
        for j in range(len(rows)):
            if j not in chosen:
                both = torch.tensor([*chosen, j])
                before = torch.linalg.slogdet(kernel[both[:-1]][:, both[:-1]]).logabsdet if chosen else torch.tensor(0.0)
                # Alone, a token is worth the square of its weight, exactly: equal ones tie, and the first is taken.
                gains[j] = (
                    weight[j] ** 2
                    if not chosen
                    else float((torch.linalg.slogdet(kernel[both][:, both]).logabsdet - before).exp())
                )
        best, *rest = sorted(gains, key=lambda j: (-gains[j], j))
        if gains[best] <= 1e-5 * top:
            others = sorted(gains, key=lambda j: (-weight[j], j))
            return sorted(chosen + others[: count - len(chosen)]), lead
        behind = [gains[j] for j in rest if chosen or gains[j] < gains[best]]
        if behind:
            lead = min(lead, 1 - behind[0] / gains[best])
        chosen.append(best)
    return sorted(chosen), lead
