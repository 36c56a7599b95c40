"""PyramidDrop's rule, literally, for one sample: what one query attends to, over all heads."""

import math


def row(query, keys, scaling):
    """Head-mean softmax attention of one query (heads, d) over keys (tokens, kv_heads, d), a list of floats."""
    heads, shared = len(query), len(query) // keys.shape[1]
    mean = [0.0] * len(keys)
    for head in range(heads):
        logits = [float((query[head] * key[head // shared]).sum()) * scaling for key in keys]
        top = max(logits)
        weights = [math.exp(logit - top) for logit in logits]
        for place, weight in enumerate(weights):
            mean[place] += weight / sum(weights) / heads
    return mean


def stage(scores, total, ratio):
    """Which of the visual tokens present stay, ascending, and the relative gap between the last kept and the first dropped."""
    stays = int(total * ratio)
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    gap = 1 - scores[order[stays]] / scores[order[stays - 1]] if 0 < stays < len(order) else math.inf
    return sorted(order[:stays]), gap


def rule(gaps, layers, ratios):
    """The method for `between.run`; `gaps` takes how near each decision was."""
    total = None

    def choose(reference, before):
        nonlocal total
        total = len(before.visual) if total is None else total
        if before.layer not in layers:
            return None
        block = f"layers.{before.layer}."
        x = reference.norm(before.x, block + "input_layernorm")
        queries, keys = (reference.rotated(x, f"{block}self_attn.{part}", before.positions) for part in "qk")
        weights = row(queries[-1], keys, reference.width**-0.5)
        stays, gap = stage([weights[place] for place in before.visual], total, ratios[layers.index(before.layer)])
        gaps.append(gap)
        return [(before.names[before.visual[place]], None) for place in stays]

    return choose
