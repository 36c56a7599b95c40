"""A pruned prompt against the unpruned decoder given a shorter prompt, for methods that act before the decoder.

A rule is a function of `Seen` and the number of visual tokens that gives, per row that goes on, the visual token that it is
named by, in the order in which they go on; the rows before the projector (rows, C), or None where tokens stay as they are; and
the names of those rows that stand for no single token.
"""

from dataclasses import dataclass

import torch

from tests.reference.decoder import reference_of
from tests.reference.tower import look
from tests.support import families, llava_hr
from tests.support.models import batch, build, kept, new_tokens, prompt


@dataclass
class Case:
    """A model, samples of it one by one, and all of them in one batch padded on the left."""

    model: object
    samples: list
    batch: dict


def llava(layers=3, dtype=torch.float32):
    """LLaVA-1.5 with 36 tokens an image: one image, two with text between, none, and one at the start."""
    model = build("llama-gqa", layers, seed=2, dtype=dtype)
    parts = [[3, "image", 5], [4, "image", 2, "image", 7], [9], ["image", 2]]
    samples = [prompt(model, one, seed) for seed, one in enumerate(parts)]
    return Case(model, samples, batch(samples))


def tiled():
    """LLaVA-NeXT with tiles, padding inside them, newlines, and two images in a prompt.

    With these weights no two tokens have scores nearer than float32 tells apart.
    """
    model, processor = families.build("llava_next", 3, seed=7), families.processor("llava_next")
    texts = [["w1 w2", (40, 20), "w3 w4 w5"], ["w6", (44, 48), "w7", (20, 60), "w8 w9"], ["w1 w5 w6"]]
    return Case(model, [families.inputs(processor, [one]) for one in texts], families.inputs(processor, texts))


def without_cls():
    """LLaVA-HR, whose tower has no [CLS]."""
    samples = [llava_hr.prompt(parts, seed) for seed, parts in enumerate([[3, "image", 5], ["image", 2, "image", 3]])]
    return Case(llava_hr.build(), samples, batch(samples))


def layers_of(model):
    """The tower's number of layers."""
    vision = model.config.vision_config
    return getattr(vision, "clip_config", vision).num_hidden_layers


def check(case, pruner, rule, new=4):
    """What `pruner` does to a batch is what `rule` does to each of its samples; gives the tokens that stay, by sample."""
    model, survivors = case.model, []
    with torch.no_grad(), pruner(model) as trace:
        answers = new_tokens(model, case.batch, new).tolist()
        logits = model(**case.batch).logits
        together = [kept(trace, row) for row in range(len(case.samples))]
        entered = [[int(layer[row]) for layer in trace.visual_in] for row in range(len(case.samples))]
    for row, sample in enumerate(case.samples):
        embeds, names, made = shorter(model, sample, rule)
        stays = sorted(set(names) - set(made))
        assert together[row] == [stays] * len(together[row])
        assert entered[row] == [len(names)] * len(entered[row])
        expected = _logits(model, embeds)
        difference = (logits[row, -len(embeds) :] - expected).abs().max() / expected.abs().max()
        assert float(difference) < 2e-5, f"sample {row}: {float(difference)}"
        tokens = []
        for _ in range(new):
            tokens.append(int(_logits(model, embeds)[-1].argmax()))
            embeds = torch.cat([embeds, model.get_input_embeddings()(torch.tensor([tokens[-1]]))])
        assert answers[row] == tokens
        survivors.append(stays)
    return survivors


def shorter(model, sample, rule):
    """The embeddings that `rule` leaves of a sample's prompt; names and made of its rows."""
    reference = reference_of(model, torch.float32)
    embeds, image = reference.embed(sample)
    visual = [place for place, is_visual in enumerate(reference.visual(sample, image)) if is_visual]
    if not visual:
        return embeds, [], []
    seen = look(model, sample, range(layers_of(model)))
    assert len(seen.token) == len(visual)
    names, rows, made = rule(seen, len(visual))
    places = sorted(visual[name] for name in names)
    if rows is None:
        values = [embeds[visual[name]] for name in names]
    else:
        with torch.no_grad():
            values = list(model.model.multi_modal_projector(rows.to(embeds.dtype)))
    at = dict(zip(places, values, strict=True))
    gone = set(visual) - set(places)
    return torch.stack([at.get(place, row) for place, row in enumerate(embeds) if place not in gone]), names, made


def _logits(model, embeds):
    with torch.no_grad():
        hidden = model.model.language_model(inputs_embeds=embeds[None], use_cache=False).last_hidden_state
        return model.lm_head(hidden)[0]


def measured(model, pruner, inputs):
    """The share of the visual tokens' decoder FLOPs that was saved, scoring included."""
    from tests.support.flop_checkers import visual_reduction

    with torch.no_grad(), pruner(model) as trace:
        model(**inputs, logits_to_keep=1)
    return visual_reduction(
        model.config.get_text_config(), trace.visual_tokens, trace.visual_in, trace.visual_out, trace.scoring_macs
    )
