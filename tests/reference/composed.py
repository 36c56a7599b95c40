"""Pruners one after the other, literally: one sample, in loops; each has its rules, its position ids, and its own memory.

A part's `before(reference, here)` answers what goes on before a layer, as a rule of `between.run`; its `after(layer, scores)`
which visual tokens leave after the attention, as a rule of `decoder.Reference.prefill`. Names are indices in the prompt. A part
that repacks numbers all that is left 0, 1, …, and a token decoded later counts on from there in the layers that follow.
"""

from dataclasses import dataclass
from typing import Any

import torch

from . import families  # noqa: F401 - makes the other families known to reference_of
from . import pool as pooling
from . import tome as merging
from .between import Before, ended, follow
from .decoder import Run, lowest, reference_of, statistics
from .divprune import divprune as farthest
from .pyramiddrop import rule as stages
from .tower import look
from .visionzip import visionzip as zipped
from .vispruner import vispruner as by_duplicates


@dataclass
class Part:
    """One pruner: its two rules, whether it repacks, and who is told the number of visual tokens that enter the first layer."""

    before: Any = None
    after: Any = None
    repack: bool = False
    told: Any = None


def run(model, inputs, parts, new_tokens=0, made=()):
    """The prefill and greedy continuation of one unpadded sample under `parts`, in their order.

    `made` takes the names of rows that stand for no single token.
    """
    reference = reference_of(model)
    x, image = reference.embed(inputs)
    visual = reference.visual(inputs, image)
    positions, following = reference.positions(inputs, len(x))
    last = max((place for place, is_image in enumerate(image) if is_image), default=len(x))
    names = [sum(visual[:place]) if is_visual else None for place, is_visual in enumerate(visual)]
    here = Before(0, x, names, positions, [place > last for place in range(len(x))], None, None)
    caches, nexts, out = [[] for _ in range(reference.layers)], [], Run()
    for layer in range(reference.layers):
        for part in parts:
            here.layer = layer
            chosen = part.before(reference, here) if part.before and here.visual else None
            if chosen is not None:
                here = follow(here, chosen, part.repack)
                following = len(here.x) if part.repack else following
        for part in parts:
            if layer == 0 and part.told is not None:
                part.told.append(len(here.visual))
        nexts.append(following)
        output, maps = reference.attend(here.x, layer, here.positions, caches[layer], here.names)
        y = here.x + reference.project(output, layer)
        stays, positions = list(range(len(y))), list(here.positions)
        for part in parts:
            left = [name if row in stays else None for row, name in enumerate(here.names)]
            if part.after is None or not any(name is not None for name in left):
                continue
            gone = set(part.after(layer, statistics(maps, left, here.text)))
            stays = [row for row in stays if here.names[row] is None or here.names[row] not in gone]
            if part.repack and gone:
                following = len(stays)
                positions = [stays.index(row) if row in stays else None for row in range(len(y))]
        x = reference.deepen(reference.feed_forward(y[stays], layer), layer, [here.names[row] for row in stays])
        kept = [[values[row] for row in stays] for values in (here.names, positions, here.after)]
        here = Before(layer, x, *kept, None, None)
        out.kept.append(sorted(name for name in here.names if name is not None and name not in made))
        out.kv_lengths.append(len(caches[layer]))
    return ended(reference, here, caches, nexts, out, new_tokens)


def fitprune(recipe, gaps):
    """FitPrune by a recipe, at the number of visual tokens that there are in the first layer."""
    total = []

    def after(layer, scores):
        product = [cross * own for cross, own in zip(scores.cross, scores.own, strict=True)]
        gone, gap = lowest(scores, product, recipe.schedule(total[0])[layer])
        gaps.append(gap)
        return gone

    return Part(after=after, told=total)


def fastv(layer, ratio, gaps):
    """FastV: by what the last token pays in the layer before, whoever has dropped tokens since."""
    total, paid = [], {}

    def after(index, scores):
        if index != layer - 1:
            return []
        paid.update(zip(scores.original, scores.last_row, strict=True))
        return []

    def before(reference, here):
        if here.layer != layer:
            return None
        present = [here.names[row] for row in here.visual]
        order = sorted(present, key=lambda name: -paid[name])
        stays = int(total[0] * (1 - ratio))
        if 0 < stays < len(order):
            gaps.append(1 - paid[order[stays]] / paid[order[stays - 1]])
        return [(name, None) for name in sorted(order[:stays], key=present.index)]

    return Part(before, after, told=total)


def pyramiddrop(layers, ratios, gaps):
    """PyramidDrop, of the tokens that there are before the first layer."""
    return Part(stages(gaps, layers, ratios), repack=True)


def once(choose, repack=True):
    """A part that works before the first layer: `choose(here, names)` gives what goes on of the tokens `names`."""

    def before(reference, here):
        return choose(here, [here.names[row] for row in here.visual]) if here.layer == 0 else None

    return Part(before, repack=repack)


def divprune(ratio, gaps):
    """DivPrune, of the hidden states that there are before the first layer."""

    def choose(here, names):
        kept, gap = farthest(here.x[here.visual].float(), ratio)
        gaps.append(gap)
        return [(names[index], None) for index in kept]

    return once(choose)


def projected(model, rows):
    """Tower features (rows, C) as the decoder gets them."""
    with torch.no_grad():
        return list(model.model.multi_modal_projector(torch.stack(list(rows)).to(model.dtype)).double())


def visionzip(model, inputs, pruner, made):
    """VisionZip; `made` takes the names of [CLS] rows."""

    def choose(here, names):
        n, layers = len(names), model.config.vision_config.num_hidden_layers
        seen, layer = look(model, inputs, range(layers)), pruner.layer % layers
        dominant = round(n * pruner.dominant / pruner.visual_tokens)
        contextual = round(n * (pruner.dominant + pruner.contextual) / pruner.visual_tokens) - dominant
        score, cls = seen.attention(layer).sum(0), seen.cls[:dominant]
        first, second, rows = zipped(score, seen.keys(layer), seen.features(), cls, dominant, contextual)
        made.extend([token for token in range(n) if token not in first + second][: len(cls)])
        return list(zip([*made, *first, *second], projected(model, rows), strict=True))

    return once(choose)


def vispruner(model, inputs, pruner):
    """VisPruner, of the tokens that there are before the first layer."""

    def choose(here, names):
        seen, layer = look(model, inputs, range(model.config.vision_config.num_hidden_layers)), pruner.layer % 2
        keep = round(len(names) * pruner.visual_token_num / pruner.visual_tokens)
        views = len({seen.token[name][0] for name in names})
        score, features = seen.attention(layer).mean(0)[names], seen.features()[names]
        return [(names[index], None) for index in by_duplicates(score, features, keep, pruner.important_ratio, views)]

    return once(choose)


def tome(model, inputs, pairs):
    """ToMe, in the order of the prompt: what its tower gives replaces what the whole tower gave."""

    def choose(here, names):
        going = []
        for number, pixels in enumerate(inputs["pixel_values"]):
            features, seats, _ = merging.tower(model, pixels, pairs)
            going += [(36 * number + seat, row) for seat, row in zip(seats, projected(model, features), strict=True)]
        return sorted(going, key=lambda one: one[0])

    return once(choose)


def pool(rows, columns):
    """Pooling of whole views of 6 x 6 tokens."""

    def choose(here, names):
        x, going = here.x[here.visual], []
        for first in range(0, len(names), 36):
            view = x[first : first + 36].view(6, 6, -1)
            means = pooling.pool(view, torch.ones(6, 6, dtype=torch.bool), rows, columns)
            going += [(names[first + patch], mean) for patch, mean in means]
        return sorted(going, key=lambda one: one[0])

    return once(choose)
