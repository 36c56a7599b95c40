"""A conversation on a pruned first prompt, one sample at a time, in plain loops over the model's own weights.

Which visual tokens each layer has is taken from the first prompt alone. What comes later is appended to every layer: it sees
what that layer has of the prompt, and all text since.
"""

import torch

from .decoder import reference_of


class Conversation:
    """The first prompt: layer l is entered by the visual tokens `entered[l]`, of which `kept[l]` leave it."""

    def __init__(self, model, inputs, entered, kept, *, repacked=False):
        self.reference = reference = reference_of(model)
        self.repacked = repacked
        x, image = reference.embed(inputs)
        visual = reference.visual(inputs, image)
        positions, self.next = reference.positions(inputs, len(x))
        original = [sum(visual[:row]) if is_visual else None for row, is_visual in enumerate(visual)]
        self.length = self.prompt = len(x)
        self.caches = []
        for layer in range(reference.layers):
            x, positions, original = self.only(entered[layer], x, positions, original)
            self.caches.append([])
            output, _ = reference.attend(x, layer, positions, self.caches[layer], original)
            before = original
            x, positions, original = self.only(kept[layer], x, positions, before)
            output = output[[row for row, index in enumerate(before) if index is None or index in kept[layer]]]
            x = reference.feed_forward(x + reference.project(output, layer), layer)
            x = reference.deepen(x, layer, original)
        self.rows = [len(cache) for cache in self.caches]

    def only(self, left, x, positions, original):
        """The rows of text and of the visual tokens `left`."""
        rows = [row for row, index in enumerate(original) if index is None or index in left]
        if len(rows) == len(x):
            return x, positions, original
        positions = list(range(len(rows))) if self.repacked else [positions[row] for row in rows]
        return x[rows], positions, [original[row] for row in rows]

    def say(self, ids):
        """Appends text; gives the logits (tokens, vocabulary) behind each of its tokens."""
        reference, said = self.reference, self.length - self.prompt
        x = torch.stack([reference.weights["embed_tokens.weight"][token] for token in ids])
        for layer in range(reference.layers):
            start = self.next + said
            if self.repacked and self.rows[layer] < self.prompt:
                start = self.rows[layer] + said
            output, _ = reference.attend(x, layer, list(range(start, start + len(ids))), self.caches[layer])
            x = reference.feed_forward(x + reference.project(output, layer), layer)
        self.length += len(ids)
        return reference.norm(x, "norm") @ reference.head.T

    def crop(self, count):
        """Takes back the last `count` tokens of text."""
        self.caches = [cache[: len(cache) - count] for cache in self.caches]
        said = self.length - self.prompt
        into = max(count - said, 0)
        self.rows = [rows - into for rows in self.rows]
        self.prompt, self.next, self.length = self.prompt - into, self.next - into, self.length - count

    def copy(self):
        """Another conversation with the same past."""
        other = object.__new__(Conversation)
        other.__dict__ = {**vars(self), "caches": [list(cache) for cache in self.caches], "rows": list(self.rows)}
        return other


def of_trace(model, inputs, trace, *, repacked=False):
    """The conversation whose first prompt was pruned as a trace says of one sample."""
    kept = [[index for index in layer[0].tolist() if index >= 0] for layer in trace.kept]
    everything = range(int(trace.visual_tokens[0]))
    entered = []
    for layer, left in enumerate(kept):
        before = kept[layer - 1] if layer else list(everything)
        # Tokens leave before a layer, or after its attention.
        entered.append(left if int(trace.visual_in[layer][0]) == len(left) else before)
        assert len(entered[layer]) == int(trace.visual_in[layer][0])
    return Conversation(model, inputs, entered, kept, repacked=repacked)
