"""FastV, literally: the int(n(1-R)) visual tokens stay that the last token attends to most in layer K-1, over all heads."""

import math

from .decoder import reference_of


def fastv(model, inputs, layer=2, ratio=0.5, new_tokens=0):
    """One unpadded sample; `layer` is K, `ratio` is R. Tokens go between layers K-1 and K."""
    gaps = []

    def rule(index, scores):
        if index != layer - 1:
            return []
        n = len(scores.original)
        stays = int(n * (1 - ratio))
        order = sorted(range(n), key=lambda i: (-scores.last_row[i], i))
        if 0 < stays < n:
            gaps.append(1 - scores.last_row[order[stays]] / scores.last_row[order[stays - 1]])
        return [scores.original[i] for i in order[stays:]]

    reference = reference_of(model)
    run, caches, position = reference.prefill(inputs, choose_between=rule)
    run.closest = min(gaps, default=math.inf)
    return reference.decode(run, caches, position, new_tokens)
