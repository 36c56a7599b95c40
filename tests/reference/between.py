"""A prefill whose visual tokens are chosen, merged or put in order between layers, and its continuation: one sample, in loops.

The rest is `decoder.Reference`, or what `families` makes of it. What goes on is given as a list of (name, vector): the index
of a visual token in the prompt, and its hidden state from here on, None for what it was. It takes, in this order, the sorted
places of the named tokens. Under `repack`, positions are 0, 1, … over what is left, and a decoded token's, in each layer, the
number of tokens in its cache.
"""

from dataclasses import dataclass

import torch

from . import families  # noqa: F401 - makes the other families known to reference_of
from .decoder import Run, reference_of


@dataclass
class Before:
    """The sequence before a layer. Lists have one entry per token; `names` are None for text."""

    layer: int
    x: torch.Tensor
    names: list
    positions: list
    after: list  # whether it is text after the last image
    maps: torch.Tensor | None  # of the layer before (heads, rows, keys), over the sequence as it is
    keys: list | None  # of the layer before, (kv_heads, d) each

    @property
    def visual(self):
        """Rows of the visual tokens."""
        return [row for row, name in enumerate(self.names) if name is not None]

    @property
    def text(self):
        """Rows of the text after the last image."""
        return [row for row, after in enumerate(self.after) if after]


def run(model, inputs, rule, new_tokens=0, repack=False):
    """`rule(reference, before)` answers what goes on before a layer, or None for all.

    `closest` of what is returned is the least difference between the two largest logits of a decoded token.
    """
    reference = reference_of(model)
    x, image = reference.embed(inputs)
    visual = reference.visual(inputs, image)
    positions, following = reference.positions(inputs, len(x))
    last = max((place for place, is_image in enumerate(image) if is_image), default=len(x))
    names = [sum(visual[:place]) if is_visual else None for place, is_visual in enumerate(visual)]
    here = Before(0, x, names, positions, [place > last for place in range(len(x))], None, None)
    caches, out = [[] for _ in range(reference.layers)], Run()
    for layer in range(reference.layers):
        here.layer = layer
        chosen = rule(reference, here) if any(image) else None
        if chosen is not None:
            here = follow(here, chosen, repack)
        output, maps = reference.attend(here.x, layer, here.positions, caches[layer], here.names)
        y = here.x + reference.project(output, layer)
        keys = [key for key, _ in caches[layer]]
        y = reference.deepen(reference.feed_forward(y, layer), layer, here.names)
        here = Before(layer, y, here.names, here.positions, here.after, maps, keys)
        out.kept.append(sorted(name for name in here.names if name is not None))
        out.kv_lengths.append(len(caches[layer]))
    nexts = [len(cache) if repack else following for cache in caches]
    return ended(reference, here, caches, nexts, out, new_tokens)


def ended(reference, here, caches, nexts, out, new_tokens):
    """`out` with what the prefill ends in and its greedy continuation, which counts on from `nexts` in each layer."""
    out.hidden = reference.norm(here.x, "norm")
    out.logits = out.hidden @ reference.head.T
    logits = out.logits[-1]
    for step in range(new_tokens):
        first, second = logits.topk(2).values.tolist()
        out.closest = min(out.closest, first - second)
        out.tokens.append(int(logits.argmax()))
        y = reference.weights["embed_tokens.weight"][out.tokens[-1]][None]
        for layer in range(reference.layers):
            output, _ = reference.attend(y, layer, [nexts[layer] + step], caches[layer])
            y = reference.feed_forward(y + reference.project(output, layer), layer)
        logits = (reference.norm(y, "norm") @ reference.head.T)[0]
    return out


def follow(before, chosen, repack):
    """The sequence after what was chosen."""
    row_of = {name: row for row, name in enumerate(before.names) if name is not None}
    slots = sorted(row_of[name] for name, _ in chosen)
    seat = dict(zip(slots, chosen, strict=True))
    x, names, positions, after = [], [], [], []
    for row, name in enumerate(before.names):
        if name is not None and row not in seat:
            continue
        own, vector = seat.get(row, (None, None))
        source = row if name is None else row_of[own]
        x.append(before.x[source] if vector is None else vector)
        names.append(own)
        positions.append(before.positions[source])
        after.append(before.after[row])
    return Before(before.layer, torch.stack(x), names, list(range(len(x))) if repack else positions, after, None, None)
