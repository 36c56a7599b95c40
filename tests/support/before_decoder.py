"""What pruning before the decoder must come to: the dense model on the embeddings that are left, one sample at a time."""

from dataclasses import dataclass, field

import torch
from transformers.image_processing_utils import select_best_resolution

import tests.reference.families  # noqa: F401 - registers the layouts of tiled prompts
from fitprune.flops import visual_macs
from fitprune.models.sizes import DecoderSizes
from tests.reference.decoder import reference_of
from tests.support.models import kept, new_tokens


@dataclass
class Prompt:
    """One unpadded sample as its decoder gets it.

    Attributes:
        embeds: (T, hidden); visual: rows of the visual tokens; features: (n, hidden), their embeddings.
    """

    embeds: torch.Tensor
    visual: list[int]
    features: torch.Tensor = field(init=False)

    def __post_init__(self):
        self.features = self.embeds[self.visual]


@torch.no_grad()
def embedded(model, sample):
    """The prompt of one sample, as the dense model embeds it."""
    seen = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"][0]), with_kwargs=True
    )
    model(**sample)
    hook.remove()
    visual = [row for row, is_visual in enumerate(reference_of(model).pool(sample)) if is_visual]
    return Prompt(seen[0], visual)


@torch.no_grad()
def dense(model, prompt, going, positions, count=4):
    """The dense model where of a prompt's visual tokens only `going` are left: [(index, embedding or None for its own)].

    They take, in this order, the sorted places of those named. Returns the logits of the last row, the greedy continuation,
    and how clear that is: the smallest lead of a token over the second best.
    """
    places = iter(sorted(index for index, _ in going))
    at = {next(places): (index, vector) for index, vector in going}
    rows, ids = [], []
    index_of = {row: index for index, row in enumerate(prompt.visual)}
    for row, own in enumerate(prompt.embeds):
        if row not in index_of:
            rows.append(own)
            ids.append(row)
        elif index_of[row] in at:
            index, vector = at[index_of[row]]
            rows.append(prompt.features[index] if vector is None else vector.to(own.dtype))
            ids.append(prompt.visual[index])
    following = len(prompt.embeds)
    if positions == "repacked":
        ids, following = list(range(len(rows))), len(rows)
    embeds, first, tokens, lead = torch.stack(rows), None, [], float("inf")
    for step in range(count):
        hidden = model.get_decoder()(inputs_embeds=embeds[None], position_ids=torch.tensor([ids])).last_hidden_state
        logits = model.lm_head(hidden[0, -1])
        first = logits if first is None else first
        best = logits.topk(2).values
        lead = min(lead, float(best[0] - best[1]))
        tokens.append(int(logits.argmax()))
        embeds = torch.cat([embeds, model.get_input_embeddings()(torch.tensor(tokens[-1:]))])
        ids.append(following + step)
    return first, tokens, lead


@torch.no_grad()
def compare(model, pruner, samples, together, rule):
    """A pruner on a batch of these samples, padded left and (if `together` gives it) right, against `dense` for each.

    `together(side)` gives the batch or None; `rule(prompt, number)` what goes on of the sample of that number.
    """
    with pruner(model) as trace:
        tokens = new_tokens(model, together("left"), 4).tolist()
        survivors = [kept(trace, row) for row in range(len(samples))]
        entered = [layer.tolist() for layer in trace.visual_in]
    for row, sample in enumerate(samples):
        prompt = embedded(model, sample)
        going = rule(prompt, row) if prompt.visual else []
        logits, expected, lead = dense(model, prompt, going, pruner.positions)
        assert lead > 1e-3
        assert survivors[row] == [sorted(index for index, _ in going)] * len(survivors[row])
        assert [layer[row] for layer in entered] == [len(going)] * len(entered)
        assert tokens[row] == expected
        for side in ("left", "right"):
            batch = together(side)
            if batch is None:
                continue
            with pruner(model):
                output = model(**batch).logits[row]
            # What a sample dropped more than others is padding on its left; padding on the right stays there.
            last = -1 - int(batch["attention_mask"][row].flip(0).argmax())
            torch.testing.assert_close(output[last], logits, rtol=1e-4, atol=2e-4)


def tiling(model, size):
    """Rows and columns of tiles of a picture (height, width) on a tiled model."""
    best = select_best_resolution(size, model.config.image_grid_pinpoints)
    return [length // model.config.vision_config.image_size for length in best]


def places(model, sample):
    """Per visual token of a sample, its view and the patch of it: base view and tiles, padding left out (LLaVA-NeXT)."""
    if model.config.model_type != "llava_next":
        views = len(sample.get("pixel_values", ()))
        count = int((sample["input_ids"] == model.config.image_token_id).sum()) // max(views, 1)
        return [(view, patch) for view in range(views) for patch in range(count)]
    tower, found, first = model.config.vision_config, [], 0
    side = tower.image_size // tower.patch_size
    for size in sample.get("image_sizes", torch.zeros(0, 2)).tolist():
        rows, columns = reference_of(model).grid(size, tower.image_size, side)
        tall, wide = tiling(model, size)
        above, before = (tall * side - rows) // 2, (wide * side - columns) // 2
        found += [(first, patch) for patch in range(side**2)]
        for row in range(above, above + rows):
            for column in range(before, before + columns):
                view = first + 1 + row // side * wide + column // side
                found.append((view, row % side * side + column % side))
        first += 1 + tall * wide
    return found


def saved(model, trace, row=0):
    """The share of the visual tokens' decoder FLOPs that a traced prefill of one sample saved, scoring taken off."""
    costs = DecoderSizes.of(model.config).costs()
    spent = sum(visual_macs([0], int(layer[row]), **costs) for layer in trace.visual_in) + sum(trace.scoring_macs)
    return 1 - spent / visual_macs([0] * len(trace.visual_in), int(trace.visual_tokens[row]), **costs)
