"""Training batches: scenes of given seeds as pixels, patch labels and packed questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, groupby
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from harness.scenes import draw, world
from harness.scenes.draw import Canvas
from harness.scenes.prompts import chat, prompt
from harness.scenes.questions import MOST_COUNTED, Question, ask, plural
from harness.scenes.world import CELLS, COLORS, SHAPES
from training.family import Family
from training.tokenizer import EOS

SLOT_LENGTHS = {
    **dict.fromkeys(("exist", "count", "count y/n", "color", "color y/n", "shape", "where", "at"), 10),
    **dict.fromkeys(("relation", "word", "number", "word y/n", "position y/n"), 13),
    "multiple choice": 28,
    "word, read": 56,
    "number, read": 56,
}
"""Tokens that the longest question of a kind takes with its answer. Where a kind is `read`, the prompt gives what an OCR engine
read, as the suite `textvqa-ocr` does; it does not where that would take more tokens than these.
"""
READ = ", read"


@dataclass
class Batch:
    """`pixels` float, as the tower takes them; `labels` name → long (images, V), what each of V visual tokens shows; `cells`
    long (V,), the cell of the layout where it is, -1 for none; `classes` float (images, 64), which classes
    are present; `text` long (images, T), packed questions with answers; `where` long (N,), flat positions in `text` that
    predict an answer token; `target` long (N,); `mentions` long (M,), flat positions where a thing has just been named, and
    `meant` long (M,), the token that says where it is, how many there are, or that there is none; `shown` float (M, V),
    an even distribution over its visual tokens, or zeros; `late` bool (M,), whether this takes more layers to find out. `meant`
    is -100 where only `shown` says something.
    """

    pixels: Tensor
    labels: dict[str, Tensor]
    cells: Tensor
    classes: Tensor
    text: Tensor
    where: Tensor
    target: Tensor
    mentions: Tensor
    meant: Tensor
    shown: Tensor
    late: Tensor
    groups: list[tuple[int, int]]
    questions: list[list[Question]]
    spans: list[list[tuple[int, int]]]
    scenes: list[world.Scene]
    canvas: Canvas

    def to(self, device: torch.device) -> Batch:
        """The same with its tensors on another device."""
        tensors: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors, labels={name: label.to(device) for name, label in self.labels.items()})


class Batcher:
    """Makes batches for one family of models with one tokenizer, and remembers the token ids of texts."""

    def __init__(
        self, family: Family, tokenizer: PreTrainedTokenizerFast, kinds: Sequence[str] = (), thorough: bool = False
    ) -> None:
        self.family, self.thorough = family, thorough
        self.tokenizer, self.kinds = tokenizer, sorted(kinds, key=SLOT_LENGTHS.__getitem__)
        self.ids = lru_cache(maxsize=200_000)(self._ids)
        self.prefix = self.ids(chat(""))[:3]
        self.color_of = {self.ids(" " + color)[0]: color for color in COLORS}
        self.shape_of = {self.ids(" " + shape)[0]: shape for shape in SHAPES}
        self.plural_of = {self.ids(" " + plural(shape))[0]: shape for shape in SHAPES}
        self.objects = (self.ids(" object")[0], self.ids(" objects")[0])
        self.quotes = (self.ids(' "')[0], self.ids('"')[0])
        self.options = [self.ids(f"\n{letter}.")[0] for letter in "ABCD"]

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def question_ids(self, question: Question) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of the prompt after the image's line break, and of the answer with its end token."""
        return self.ids(chat(prompt(question)))[3:], self.ids(" " + question.answer + EOS)

    def asked(self, scene: world.Scene) -> list[Question]:
        """A question of each kind, with what an OCR engine read where the kind says so and the slot is long enough."""
        found: list[Question] = []
        plain = [kind.removesuffix(READ) for kind in self.kinds]
        words = tuple(thing.text for thing in scene.things if thing.text)
        for kind, question in zip(self.kinds, ask(scene, Random(scene.seed * 2 + 2), plain), strict=True):
            if kind != plain[len(found)] and question.kind == plain[len(found)]:
                before, answer = self.question_ids(given := replace(question, read=words))
                question = given if len(before) + len(answer) - 1 <= SLOT_LENGTHS[kind] else question
            found.append(question)
        return found

    def named(self, scene: world.Scene, ids: Sequence[int]) -> list[tuple[int, int, list[world.Thing]]]:
        """Where in a prompt a thing, a word, or what is counted, has just been named; the token for its cell, number or `no`;
        and the things meant.
        """
        found = []
        for place, token in enumerate(ids):
            if token == self.options[0]:
                break
            color = self.color_of.get(ids[place - 1]) if place else None
            things = [thing for thing in scene.things if color in (None, thing.color)]
            if token == self.quotes[1]:
                word = ids[ids.index(self.quotes[0]) + 1 : place]
                things = [thing for thing in things if thing.text and self.ids(thing.text) == tuple(word)]
            elif token in self.shape_of or token in self.plural_of:
                things = [thing for thing in things if thing.shape == (self.shape_of | self.plural_of)[token]]
            elif color is None or token not in self.objects:
                continue
            if token in self.plural_of or token == self.objects[1]:
                if len(things) <= MOST_COUNTED:
                    found.append((place, self.ids(str(len(things)))[0], things))
            elif len(things) < 2:
                found.append((place, self.ids(" " + CELLS[things[0].cell] if things else " no")[0], things))
        return found

    def spelled(self, scene: world.Scene, question: Question, ids: Sequence[int]) -> list[tuple[int, int, int, int]]:
        """Options that have just been given, with the token for whether they are right; and the characters of a quoted word
        that is there, with its cell and their index, from 1.

        Each is (place, token or -100, cell or -1, index or -1).
        """
        if self.quotes[0] in ids:
            first = ids.index(self.quotes[0]) + 1
            word = ids[first : ids.index(self.quotes[1])]
            cells = [thing.cell for thing in scene.things if thing.text and self.ids(thing.text) == word]
            return [(first + index, -100, cell, index + 1) for cell in cells for index in range(len(word))]
        found = []
        for option, choice in enumerate(question.choices):
            place = ids.index(self.options[option]) + len(self.ids(" " + choice))
            found.append((place, self.ids(" yes" if "ABCD"[option] == question.answer else " no")[0], -1, -1))
        return found

    def __call__(self, seeds: list[int], least: int = 4, most: int = 8, canvas: Canvas = (1, 1)) -> Batch:
        scenes = [world.sample(seed, least, most) for seed in seeds]
        images = np.stack([draw.pixels(scene, canvas) for scene in scenes])
        views = self.family.views(canvas)
        labels = [views.labels(scene) for scene in scenes]
        classes = torch.zeros(len(scenes), len(world.ALL_CLASSES))
        for row, scene in zip(classes, scenes, strict=True):
            row[[world.ALL_CLASSES.index((thing.color, thing.shape)) for thing in scene.things]] = 1
        sizes = [SLOT_LENGTHS[kind] for kind in self.kinds]
        groups = [(len(list(slots)), size) for size, slots in groupby(sizes)]
        total = sum(sizes)
        text = np.full((len(scenes), total), self.tokenizer.pad_token_id, dtype=np.int64)
        where: list[int] = []
        target: list[int] = []
        questions: list[list[Question]] = []
        spans: list[list[tuple[int, int]]] = []
        mentions, meant, shown, late = [], [], [], []
        for row, scene in enumerate(scenes):
            asked = self.asked(scene)
            questions.append(asked)
            spans.append([])
            starts = accumulate(sizes, initial=0)
            for start, question in zip(starts, asked, strict=False):
                before, answer = self.question_ids(question)
                text[row, start : start + len(before) + len(answer) - 1] = before + answer[:-1]
                first = row * total + start + len(before) - 1
                for place, token, things in self.named(scene, before):
                    mentions.append(row * total + start + place)
                    meant.append(token)
                    written = before[place] == self.quotes[1]
                    there = labels[row]["character" if written else "shape"] > 0
                    there = there & np.isin(views.cells, [thing.cell for thing in things])
                    shown.append(there / max(1, there.sum()))
                    late.append(self.thorough and written)
                if self.thorough:
                    for place, token, cell, index in self.spelled(scene, question, before):
                        mentions.append(row * total + start + place)
                        meant.append(token)
                        there = (labels[row]["index"] == index) & (cell == views.cells)
                        shown.append(there / max(1, there.sum()))
                        late.append(True)
                spans[-1].append((len(target), len(target) + len(answer)))
                where.extend(range(first, first + len(answer)))
                target.extend(answer)
        return Batch(
            pixels=self.family.pixel_values(images),
            labels={name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in labels[0]},
            cells=torch.from_numpy(views.cells),
            classes=classes,
            text=torch.from_numpy(text),
            where=torch.tensor(where, dtype=torch.long),
            target=torch.tensor(target, dtype=torch.long),
            mentions=torch.tensor(mentions, dtype=torch.long),
            meant=torch.tensor(meant, dtype=torch.long),
            shown=torch.from_numpy(np.array(shown, dtype=np.float32).reshape(-1, len(views.cells))),
            late=torch.tensor(late, dtype=torch.bool),
            groups=groups,
            questions=questions,
            spans=spans,
            scenes=scenes,
            canvas=canvas,
        )
