"""DART's rule, literally, for one sample: pivots by the L1 norm of keys, then the least similar tokens for each pivot."""

import math


def l1(vector):
    return sum(abs(float(value)) for value in vector)


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a)) / math.sqrt(sum(float(y) ** 2 for y in b))


def largest(norms, count):
    """Places of the `count` largest, largest first."""
    return sorted(range(len(norms)), key=lambda place: (-norms[place], place))[:count]


def dart(image_keys, text_keys, image_states, text_states, budget, image_pivots=4, text_pivots=4, shared=False):
    """What stays of n visual tokens, ascending, and the least gap between a similarity that decided and the next one.

    Keys are one flat vector per token; states are hidden states after the final norm. Pivots go in the order in which they
    are found: visual ones first, each kind by falling norm.
    """
    images = largest([l1(key) for key in image_keys], image_pivots)
    texts = largest([l1(key) for key in text_keys], text_pivots)
    pivots = [image_states[place] for place in images] + [text_states[place] for place in texts]
    kept, left, gap = set(images), [place for place in range(len(image_keys)) if place not in images], math.inf
    for turn, pivot in enumerate(pivots):
        count = budget // len(pivots)
        if shared and turn < budget % len(pivots):
            count += 1
        near = {place: cosine(pivot, image_states[place]) for place in left}
        order = sorted(left, key=lambda place: (near[place], place))
        if 0 < count < len(order):
            gap = min(gap, near[order[count]] - near[order[count - 1]])
        kept.update(order[:count])
        left = [place for place in left if place not in order[:count]]
    return sorted(kept), gap


def rule(gaps, budget, k=2, shared=False, of=36):
    """The method for `between.run`, keeping the share budget/of; `gaps` takes how near each decision was."""

    def choose(reference, before):
        if before.layer != k:
            return None
        states, keys = reference.norm(before.x, "norm"), [key.flatten() for key in before.keys]
        visual, text = before.visual, before.text
        stays, gap = dart(
            [keys[row] for row in visual],
            [keys[row] for row in text],
            [states[row] for row in visual],
            [states[row] for row in text],
            round(budget * len(visual) / of),
            shared=shared,
        )
        gaps.append(gap)
        return [(before.names[visual[place]], None) for place in stays]

    return choose


def dart_embeddings(images, texts, ratio, image_pivots=4, text_pivots=4):
    """TensorRT Edge-LLM's rule on embeddings (n, d) of visual and of text tokens: what stays, ascending, and the least gap."""
    target = max(1, math.ceil(round(len(images) * (1 - ratio), 9)))
    own = largest([l1(vector) for vector in images], min(image_pivots, target))
    pivots = [images[place] for place in own] + [texts[place] for place in largest([l1(row) for row in texts], text_pivots)]
    kept, gap = set(own), math.inf
    for turn, pivot in enumerate(pivots):
        count = math.ceil((target - len(kept)) / (len(pivots) - turn))
        left = [place for place in range(len(images)) if place not in kept]
        near = {place: cosine(pivot, images[place]) for place in left}
        order = sorted(left, key=lambda place: (near[place], place))
        if 0 < count < len(order):
            gap = min(gap, near[order[count]] - near[order[count - 1]])
        kept.update(order[:count])
    return sorted(kept), gap
