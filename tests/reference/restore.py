"""RESTORE, literally (arXiv 2606.01711; the authors' code): groups one token at a time, attention one logit at a time."""

import functools
import math

import torch

from .decoder import reference_of


def groups(features, kept, retention):
    """The tokens that go on of features (n, d), `kept` as they are: their members, by the position that they go on at.

    Gives lists of members (of a kept token itself alone, of others their anchor's group), by the member that names them.
    """
    n = len(features)
    unit = [(row / row.norm()).tolist() for row in features]
    loose = [token for token in range(n) if token not in set(kept)]
    alike = {(i, j): sum(a * b for a, b in zip(unit[i], unit[j], strict=True)) for i in loose for j in loose}
    density = {i: sum(alike[i, j] for j in loose) for i in loose}
    score = {}
    for i in loose:
        below = [alike[i, j] for j in loose if density[j] < density[i]]
        score[i] = density[i] * (1 - (max(below) if below else 0))
    anchors = sorted(loose, key=lambda i: -score[i])[: retention - len(kept)]
    members = {anchor: [anchor] for anchor in anchors}
    for i in loose:
        if i not in members and anchors:
            members[max(sorted(anchors), key=lambda anchor: alike[i, anchor])].append(i)
    named = {sorted(group)[(len(group) - 1) // 2]: sorted(group) for group in members.values()}
    return named | {token: [token] for token in kept}


def restore(model, inputs, choose, retention, new_tokens, calibrated=True):
    """Logits (rows, vocabulary) of a prompt's last rows, a greedy continuation, and the tokens that went on.

    `choose` takes (features, n) and gives the tokens that go on as they are; `retention` takes n.
    """
    plain = reference_of(model)
    embeds, image = plain.embed(inputs)
    visual = [place for place, is_visual in enumerate(plain.visual(inputs, image)) if is_visual]
    n = len(visual)
    features = embeds[visual]
    members = groups(features, choose(features, n), retention(n)) if n else {}
    row_of = {visual[name]: features[group].mean(0) for name, group in members.items()}
    size_of = {visual[name]: len(group) for name, group in members.items()}
    places = [place for place in range(len(embeds)) if place not in visual or place in row_of]
    x = torch.stack([row_of.get(place, embeds[place]) for place in places])
    at, next_position = plain.positions(inputs, len(embeds))
    # A merged token goes on at the place of the member that names it, which says what it sees and what DeepStack adds to it.
    names = [visual.index(place) if place in row_of else None for place in places]
    sizes = [size_of.get(place, 1) for place in places]
    same = [n / len(members) if place in row_of else 1 for place in places]

    @functools.cache
    def decay(distance):
        half = plain.width // 2
        return sum(math.cos(distance * plain.theta(0) ** (-2 * i / plain.width)) for i in range(half)) / half

    @functools.cache
    def bias(later, positions, keys):
        weights = sizes if later else same
        bias = torch.zeros(len(positions), keys, dtype=plain.dtype)
        for row, position in enumerate(positions):
            for key in range(keys):
                bias[row, key] = math.log(weights[key]) if key < len(weights) else 0
                if len(positions) > 1 and key < len(places) and places[key] <= position:
                    bias[row, key] += math.log(2 - decay(position - places[key]))
        return bias

    if calibrated and n:
        plain.bias = lambda layer, positions, keys: bias(layer > 0, tuple(positions), keys)
    caches = [[] for _ in range(plain.layers)]

    def forward(x, positions, names=None):
        for layer in range(plain.layers):
            output, _ = plain.attend(x, layer, positions, caches[layer], names)
            x = plain.feed_forward(x + plain.project(output, layer), layer)
            x = plain.deepen(x, layer, names or [None])
        return plain.norm(x, "norm") @ plain.head.T

    logits = forward(x, [at[place] for place in places], names)
    answer, last = [], logits[-1]
    for step in range(new_tokens):
        answer.append(int(last.argmax()))
        row = plain.weights["embed_tokens.weight"][answer[-1]][None]
        last = forward(row, [next_position + step])[0]
    return logits, answer, sorted(members)
