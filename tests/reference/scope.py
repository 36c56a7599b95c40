"""SCOPE, literally (arXiv 2510.24214, algorithm 1; the authors' code): one view, one pick and one patch at a time."""


def scope(features, salience, count, alpha=1.0):
    """Features (P, d) and salience (P,) of one view → the patches chosen, ascending; the smallest relative lead of a pick."""
    n = len(features)
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    cosine = (unit @ unit.T).tolist()
    weight = [float(value) ** alpha for value in salience]
    covered, chosen, lead = [0.0] * n, [], float("inf")
    for _ in range(count):
        gains = {}
        for j in range(n):
            if j not in chosen:
                gains[j] = weight[j] * sum(max(0.0, cosine[i][j] - covered[i]) for i in range(n))
        best, *rest = sorted(gains, key=lambda j: (-gains[j], j))
        if rest and gains[best]:
            lead = min(lead, 1 - gains[rest[0]] / gains[best])
        chosen.append(best)
        covered = [max(covered[i], cosine[i][best]) for i in range(n)]
    return sorted(chosen), lead
