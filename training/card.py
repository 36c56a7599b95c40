"""The model card: what the model is, how it was made, and what it scores."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from tabulate import tabulate
from transformers import PreTrainedModel

from harness.scenes import world
from harness.scenes.draw import SIZE, Canvas
from training.batches import READ
from training.evaluate import BAR_ALL, BAR_DROP, BAR_KIND, BAR_OVER_MAJORITY, Accuracy
from training.families import FAMILIES
from training.plan import Plan

TEMPLATE = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [llava, synthetic, pruning]
---
# {name}

A real but small LLaVA: {family.classes}
({parameters:.2f} million parameters), trained {origin} on drawn scenes, so that visual-token pruning can
be measured where there is no network and no GPU. It knows its own little world and nothing else.

{about}
- Decoder: Llama, {text.num_hidden_layers} layers × {text.hidden_size}, {text.vocab_size} tokens.
- Use: `{family.model_class.__name__}.from_pretrained(folder)`, `AutoProcessor.from_pretrained(folder)`; prompts as
  `USER: <image>\\n… ASSISTANT:`, with the post-prompts of lmms-eval's tasks.
- Weights are stored in bfloat16 and used in float32; every figure below is for the stored weights.

## How it was made

`python -m training {name}`: {plan.tower_steps} steps of {plan.tower_batch} images for the tower
({taught}),
then {plan.steps} steps of {plan.batch} images for projector and decoder with the tower frozen, {asked} questions an image;
`training/plan.py` has the rest.{variants}
It took {minutes:.0f} minutes of wall clock on {where}. Torch seed {plan.seed}; torch {torch}, transformers {transformers}.
SHA-256 of model.safetensors: `{digest}`.{note}

Scenes are functions of their seeds. Training used seeds {first}–{last}, each once; held-out scenes start at {held_out},
the calibration set at {calibration}, the mini suites at {suites}. A held-out scene has 4–8 coloured shapes in a 3×3
layout (64 classes, some frequent and some found together), words and numbers of up to four characters under some of
them, small marks, and a flat texture.

## What it scores

Exact match in points on {overall.questions} questions about {scenes} held-out scenes, with the prompts of the tasks, by
`generate`. *Most frequent answer* is what always giving it would score. *Half dropped* is with half of the visual tokens,
drawn at random for every question, taken away before the decoder. Bars: {bar_all:g} overall, {bar_kind:g} for every kind
and {bar_over:g} over the most frequent answer, and at least {bar_drop:g} points lost over all with half of the visual
tokens gone (lost: {lost:.1f}).

{table}
{canvases}
## Limits

{attention}

One training run, one seed. The questions are templates and the vocabulary is closed: other words are spelled out and not
understood. Not for use on photographs.
"""

TAUGHT = """\
Its attention was taught: one head looks for the patches of what a prompt names, and in the last lesson all heads are drawn
away from patches that show nothing, as the attention of large pretrained models is. Methods that rank tokens by attention
profit from that, so this model shows how they behave where attention is informative; it cannot show whether it is."""
UNTAUGHT = """No lesson of this run says where attention should go: it is what answering questions makes of it{before}."""
FROM_LABELS = "labels of what each patch shows, and the classes in the image from [CLS], stand in for CLIP's captions"
FROM_CAPTIONS = "captions, which the text tower in `clip/` reads, and labels of what each patch shows"
FROM_FEATURES = "patch by patch, it learns to give the features that {start}'s tower gives for the scene at 96×96 pixels"
CANVASES = """
Held-out scenes take turns over pictures of these sizes. All but the first are fine print: the scene is larger, its characters
are not, and they are illegible once the picture is reduced to 96×96.

{table}
"""


def render(
    name: str,
    model: PreTrainedModel,
    plan: Plan,
    seconds: float,
    rows: Sequence[Accuracy],
    sizes: Mapping[Canvas, tuple[int, float, float]],
    scenes: int,
    digest: str,
    note: str = "",
) -> str:
    """The card's text; `seconds` is the training time, `sizes` the accuracy by canvas as `by_canvas` gives it, `scenes` the
    held-out ones used, `digest` the weights' SHA-256.

    `note` is what else there is to say about how the run came about.
    """
    overall = rows[-1]
    columns = ("kind", "questions", "exact match", "most frequent answer", "half dropped")
    cells = [(row.kind, row.questions, row.exact, row.majority, row.half) for row in rows]
    vision: Any = getattr(model.config.vision_config, "clip_config", model.config.vision_config)
    text: Any = model.config.text_config
    family = FAMILIES[plan.family]
    asked = [len(lesson.asked) for lesson in plan.lessons]
    by_size = [
        (f"{tall * SIZE}×{wide * SIZE}", int((family.views((tall, wide)).patch >= 0).sum()), *cells)
        for (tall, wide), cells in sizes.items()
    ]
    columns_by_size = ("height × width", "visual tokens", "questions", "exact match", "half dropped")
    canvases = tabulate(by_size, headers=columns_by_size, tablefmt="github", floatfmt=".1f")
    return TEMPLATE.format(
        **{"name": name, "plan": plan, "family": family, "text": text, "overall": overall},
        **{"bar_all": BAR_ALL, "bar_kind": BAR_KIND, "bar_over": BAR_OVER_MAJORITY, "bar_drop": BAR_DROP},
        origin=f"from the weights of {plan.start}" if plan.start else "from scratch",
        about=family.card.format(layers=vision.num_hidden_layers, width=vision.hidden_size),
        taught=tower_of(plan),
        attention=attention_of(plan),
        variants="".join(variants_of(plan)),
        canvases=CANVASES.format(table=canvases) if len(sizes) > 1 else "",
        parameters=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        asked="–".join(map(str, sorted({min(asked), max(asked)}))),
        minutes=seconds / 60,
        where=torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores",
        torch=torch.__version__,
        transformers=transformers.__version__,
        first=world.TRAIN_SEEDS.start + plan.first_seed,
        last=world.TRAIN_SEEDS.start + plan.first_seed + plan.seeds_used - 1,
        held_out=world.HELD_OUT_SEEDS.start,
        calibration=world.CALIBRATION_SEEDS.start,
        suites=world.SUITE_SEEDS.start,
        digest=digest,
        note=f"\n\n{textwrap.fill(note, 120)}" if note else "",
        scenes=scenes,
        lost=overall.exact - overall.half,
        table=tabulate(cells, headers=columns, tablefmt="github", floatfmt=".1f"),
    )


def tower_of(plan: Plan) -> str:
    """What the tower learnt from."""
    if plan.start and not plan.captions:
        return FROM_FEATURES.format(start=plan.start)
    return FROM_CAPTIONS if plan.captions else FROM_LABELS


def attention_of(plan: Plan) -> str:
    """What lessons taught attention."""
    if any(lesson.looks or lesson.calm for lesson in plan.lessons):
        return TAUGHT
    return UNTAUGHT.format(before=f" from {plan.start}'s weights on" if plan.start else "")


def variants_of(plan: Plan) -> list[str]:
    """What sets the decoder stage of a plan apart, in sentences that follow another."""
    said = []
    if plan.projector_steps:
        said.append(
            f"\nIn {plan.projector_steps} steps before these the projector learnt to make of the new tower's features\n"
            f"the visual tokens that {plan.start}'s projector makes of its own tower's."
        )
    if plan.words:
        said.append(
            "\nEvery patch of a thing was labelled with what is written under it, so that a word is in several visual tokens."
        )
    if plan.spelling:
        said.append(
            "\nVisual tokens of a thing were drawn towards the characters under it, told by their embeddings, turned by their\n"
            f"place; and in {plan.unwritten:.0%} of the decoder steps the tokens of the characters themselves showed\n"
            "nothing, so that a word had to be read from the thing's."
        )
    if plan.jitter:
        said.append(
            f"\nIn {plan.jitter:.0%} of the decoder steps an image's position ids took up another extent,\n"
            "evenly or with random gaps."
        )
    if plan.dropped:
        said.append(f"\nIn each decoder step a random share of the visual tokens, {plan.dropped:.0%} at most, was left out.")
    merging = [lesson for lesson in plan.lessons if lesson.merged]
    if merging:
        said.append(
            f"\nFrom step {merging[0].first} on, in {merging[0].merged:.0%} of the steps, tokens left out were merged into\n"
            "some that stayed, as methods that merge do: the decoder had seen no mean of tokens before."
        )
    if plan.blind:
        said.append(
            f"\nIn {plan.blind:.0%} of the decoder steps no text attended to visual tokens below a random depth,\n"
            "a third of the layers at most."
        )
    if any(kind.endswith(READ) for lesson in plan.lessons for kind in lesson.asked):
        said.append("\nSome prompts gave what an OCR engine read in the picture, as LLaVA's own script for TextVQA does.")
    if plan.inserted:
        after = ", ".join(f"{plan.inserted.count(layer)} after layer {layer}" for layer in sorted(set(plan.inserted)))
        said.append(f"\nAt step {plan.deep_from} layers that change nothing at first were inserted: {after}.")
    return said
