"""ToMe, literally (arXiv 2210.09461, appendix D; the authors' code): one view at a time, pair by pair; and in a CLIP tower."""

import math

import torch


def tome(hidden, keys, sizes, seats, r, has_cls):
    """Merge r pairs of one view's tokens: hidden (t, d), keys (heads, t, d), sizes and seats lists of t.

    Returns the same after merging, and the smallest gap of a decision: between the best and second partner, and at the cut.
    """
    count = len(hidden)
    r = min(r, (count - has_cls) // 2)
    if r <= 0:
        return hidden, sizes, seats, math.inf
    metric = keys.mean(0)
    metric = metric / metric.norm(dim=1, keepdim=True)
    even, odd = list(range(0, count, 2)), list(range(1, count, 2))
    partner, score, gap = {}, {}, math.inf
    for token in even:
        if has_cls and token == 0:
            continue
        cosines = {other: float(metric[token] @ metric[other]) for other in odd}
        best = sorted(cosines, key=lambda other: -cosines[other])
        partner[token], score[token] = best[0], cosines[best[0]]
        if len(best) > 1:
            gap = min(gap, cosines[best[0]] - cosines[best[1]])
    ranked = sorted(score, key=lambda token: -score[token])
    if r < len(ranked):
        gap = min(gap, score[ranked[r - 1]] - score[ranked[r]])
    merged = ranked[:r]
    # Sorted only where there is a [CLS], to have it first.
    stays = [token for token in even if token not in merged] if has_cls else ranked[r:]
    totals = {token: hidden[token] * sizes[token] for token in [*stays, *odd]}
    weights = {token: sizes[token] for token in [*stays, *odd]}
    for token in merged:
        totals[partner[token]] = totals[partner[token]] + hidden[token] * sizes[token]
        weights[partner[token]] += sizes[token]
    order = [*stays, *odd]
    hidden = torch.stack([totals[token] / weights[token] for token in order])
    return hidden, [weights[token] for token in order], [seats[token] for token in order], gap


@torch.no_grad()
def tower(model, pixels, pairs):
    """One picture (3, h, w) through a LLaVA's CLIP, `pairs[l]` merged in layer l: its features (m, d) in the tower's order,
    the patch that each is named by, and the smallest gap of a decision."""
    clip, gap = model.model.vision_tower, math.inf
    x = clip.pre_layrnorm(clip.embeddings(pixels[None]))[0]
    sizes, seats = [1] * len(x), list(range(-1, len(x) - 1))
    layers = clip.encoder.layers
    read = model.config.vision_feature_layer % (len(layers) + 1)
    for index, layer in enumerate(layers[:read]):
        normed, own = layer.layer_norm1(x), layer.self_attn
        heads, width = own.num_heads, x.shape[1] // own.num_heads
        query, key, value = (
            part(normed).view(len(x), heads, width).transpose(0, 1) for part in (own.q_proj, own.k_proj, own.v_proj)
        )
        logits = query @ key.transpose(1, 2) / math.sqrt(width) + torch.tensor(sizes).log()
        mixed = torch.softmax(logits, -1) @ value
        x = x + own.out_proj(mixed.transpose(0, 1).reshape(len(x), -1))
        x, sizes, seats, closest = tome(x, key, sizes, seats, pairs[index], has_cls=1)
        gap = min(gap, closest)
        x = x + layer.mlp(layer.layer_norm2(x))
    return x[1:], seats[1:], gap
