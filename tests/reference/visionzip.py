"""VisionZip, literally: dominant tokens as they are, evenly strided others that take in what is like them."""

import torch

from .vispruner import cosine


def visionzip(score, keys, features, cls, dominant, contextual):
    """One sample: `score` (n,) [CLS] attention, `keys` (n, d), `features` (n, C), `cls` a list of [CLS] features (C,), one of
    each view, which are among the `dominant`.

    Gives the dominant patches, the contextual ones, and the features that go into the projector, (kept, C): [CLS], dominant
    and contextual ones.
    """
    score, keys = score.tolist(), keys.tolist()
    cls = cls[:dominant]
    by_attention = sorted(range(len(score)), key=lambda token: -score[token])
    dominants = sorted(by_attention[: dominant - len(cls)])
    others = [token for token in range(len(score)) if token not in dominants]
    targets = []
    if contextual:
        step = max(1, len(others) // contextual)
        targets = others[::step][:contextual]
    assigned = {target: [] for target in targets}
    for token in others:
        if targets and token not in targets:
            alike = [cosine(keys[token], keys[target]) for target in targets]
            assigned[targets[alike.index(max(alike))]].append(token)
    rows = [*cls, *(features[token] for token in dominants)]
    for target in targets:
        row = features[target].clone()
        if assigned[target]:
            row += sum(features[token] for token in assigned[target]) / len(assigned[target])
        rows.append(row)
    return dominants, targets, torch.stack(rows)
