"""What a training run does, from which its weights follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.scenes.draw import Canvas
from training.depth import depth_after

ASKED = (
    *("exist", "count", "count y/n", "color", "color y/n", "shape", "where", "where", "at", "at", "multiple choice"),
    *("relation", "relation", "word", "number", "word y/n", "position y/n", "position y/n", "position y/n"),
)
ASKED_LATER = (
    *("exist", "exist", "count", "count y/n", "color", "color y/n", "color y/n", "shape", "where", "at"),
    *("relation", "relation", "word", "number", "word y/n", "position y/n", "position y/n", "position y/n"),
    *("multiple choice", "multiple choice"),
)
ASKED_LAST = (
    *("exist", "count", "count", "count y/n", "count y/n", "count y/n", "count y/n"),
    *("color", "color y/n", "shape", "where", "at", "relation", "relation", "word", "number", "position y/n"),
    *("word y/n", "word y/n", "word y/n", "word y/n", "multiple choice", "multiple choice", "multiple choice"),
)
ASKED_AT_THE_END = (
    *("exist", "count", "count y/n", "count y/n", "color", "color y/n", "shape", "where", "at", "relation", "word"),
    *("number", "word y/n", "word y/n", "position y/n", *["multiple choice"] * 6),
)
ASKED_TO_READ = (
    *("exist", "count", "count y/n", "color", "color y/n", "shape", "where", "at", "relation", "relation", *["word"] * 5),
    *("number", "number", "word y/n", "word y/n", "position y/n", "multiple choice", "multiple choice", "multiple choice"),
)
ASKED_EVENLY = (
    *("exist", "count", "count y/n", "count y/n", "color", "color y/n", "shape", "where", "at", "relation", "relation"),
    *("word", "word", "number", "word y/n", "word y/n", "position y/n", "position y/n", *["multiple choice"] * 3),
)
ASKED_AND_READ = (
    *("exist", "count", "count y/n", "count y/n", "color", "color y/n", "shape", "where", "at", "relation", "relation"),
    *("word", "word, read", "number", "number, read", "word y/n", "word y/n", "position y/n", "position y/n"),
    *("multiple choice", "multiple choice"),
)
ASKED_TO_SPELL = (
    *("exist", "count", "count y/n", "color", "color y/n", "shape", "where", "at", "relation", *["word"] * 4),
    *(*["number"] * 5, "word y/n", "word y/n", "position y/n", "multiple choice"),
)
"""What is asked about each image: more of what is hard to learn, or is still to be learnt; of what is read, with what an
OCR engine read in the prompt, too.
"""


@dataclass(frozen=True)
class Lesson:
    """What decoder steps from `first` on are like.

    least: the smallest number of things in a scene; places: whether patches are aligned with the word for their cell, as
    they are with their colour, shape or character; mentions: whether the state halfway up the decoder, where a prompt has
    just named something, is drawn towards the word for its cell, its number, or `no`; looks: whether one attention head is
    drawn there towards the patches of what was named; thorough: whether both are done for the characters of quoted words
    and for options, which are drawn towards `yes` or `no`; asked: the kinds of questions about each image; calm: whether
    all attention, of every head and layer, is drawn away from patches that show nothing, as that of large models is; merged:
    in which share of the steps visual tokens that are left out are merged into some that stay.
    """

    first: int
    least: int
    places: bool
    mentions: bool
    looks: bool = False
    thorough: bool = False
    asked: tuple[str, ...] = ASKED
    calm: bool = False
    merged: float = 0.0


@dataclass(frozen=True)
class Plan:
    """A training run of a model of a `family`: from scratch, or from the weights of the embedded model `start`, whose
    tower's features are then what the tower learns to give. With `captions` the tower starts anew all the same, and it is the
    projector that learns, in `projector_steps`, to give what the start's does. Batches are images a step over all processes,
    and steps take turns over `canvases`; scenes take consecutive seeds from `first_seed`, the tower's first.

    Learning rates warm up and stay; the tower's falls to 0 over the last share `tower_decay`, the decoder's goes straight
    from one of the `knees` (step, share of the highest rate) to the next. The first `curriculum` decoder steps go from two
    things a scene to eight. `alignment`, `mentions`, `looks` and `calm` are the weights of the losses that lessons speak
    of, beside answers' 1; `depths` are the numbers of layers below the states that mentions are read from, the second for
    thorough ones, and `look` is the layer whose first head looks.

    The tower's loss counts patch labels with `labels`, and the contrast between captions with `captions`, among the scenes that
    one process sees in a step. With `words`, labels of a thing's patches spell what is written under it.

    In a share `jitter` of the decoder steps the position ids of visual tokens are not one after the other; in each a random
    share of the visual tokens, `dropped` at most, is left out; and in a share `blind` of them no text attends to visual tokens
    below a random depth, a third of the layers at most. `spelling` is the weight of the loss by which visual tokens of a thing
    spell what is written under it, and in a share `unwritten` of the decoder steps the tokens of the characters themselves show
    nothing. At decoder step `deep_from`, where rates warm up again, a layer that changes nothing at first is inserted after
    each of the decoder's layers `inserted`, counted from 1.
    """

    tower_steps: int = 800
    tower_batch: int = 32
    tower_rate: float = 4e-3
    steps: int = 3900
    batch: int = 16
    rate: float = 3e-3
    other_rate: float = 2e-3
    alignment: float = 0.3
    mentions: float = 0.5
    depths: tuple[int, int] = (4, 6)
    looks: float = 0.5
    look: int = 2
    calm: float = 0.5
    warm_up: int = 40
    tower_decay: float = 0.5
    knees: tuple[tuple[int, float], ...] = ((1, 1.0), (2, 0.0))
    curriculum: int = 153
    lessons: tuple[Lesson, ...] = (Lesson(0, 4, True, True, thorough=True, asked=ASKED_EVENLY),)
    seed: int = 0
    width: int = 128
    layers: int = 8
    checkpoint_every: int = 150
    family: str = "llava"
    start: str = ""
    canvases: tuple[Canvas, ...] = ((1, 1),)
    first_seed: int = 0
    labels: float = 1.0
    captions: float = 0.0
    words: bool = False
    jitter: float = 0.0
    inserted: tuple[int, ...] = ()
    deep_from: int = 0
    projector_steps: int = 0
    dropped: float = 0.0
    blind: float = 0.0
    spelling: float = 0.0
    unwritten: float = 0.0

    def canvas(self, step: int) -> Canvas:
        """What the scenes of a step are drawn on."""
        return self.canvases[step % len(self.canvases)]

    @property
    def seeds_used(self) -> int:
        """How many scenes the run sees, once each."""
        return self.scenes_before + self.steps * self.batch

    @property
    def scenes_before(self) -> int:
        """How many of them come before the decoder's."""
        return (self.tower_steps + self.projector_steps) * self.tower_batch

    def lesson(self, step: int) -> Lesson:
        """The lesson that a decoder step belongs to."""
        return [lesson for lesson in self.lessons if lesson.first <= step][-1]

    def tower_factor(self, step: int) -> float:
        """Learning rate at a tower step, relative to the highest."""
        return min(1.0, (step + 1) / self.warm_up, (self.tower_steps - step) / (self.tower_decay * self.tower_steps))

    def projector_factor(self, step: int) -> float:
        """Learning rate at a projector step, relative to the highest."""
        return min(1.0, (step + 1) / self.warm_up, 2 * (self.projector_steps - step) / self.projector_steps)

    def factor(self, step: int) -> float:
        """Learning rate at a decoder step, relative to the highest."""
        since = step - self.deep_from if step >= self.deep_from else step
        steps, factors = zip(*self.knees, strict=True)
        share = float(np.interp(step * self.knees[-1][0] / self.steps, steps, factors))
        return min(share, (since + 1) / self.warm_up)

    def depths_of(self, step: int) -> tuple[int, ...]:
        """The numbers of layers below the states that mentions are read from at a decoder step."""
        return tuple(depth_after(depth, self.inserted) for depth in self.depths) if step >= self.deep_from else self.depths


FINE_TUNING = (Lesson(0, 4, True, True, True, True, ASKED_AT_THE_END, True),)
"""The last lesson of llava-tiny, for models that start from its weights."""

READ_LATE = 6 * (1,) + 5 * (4,) + 5 * (8,)
"""Sixteen layers, inserted so that of 24 the first seven come before those that look for what is asked about. In large
models, too, the middle layers do that (Zhang et al., arXiv 2411.18620).
"""
DEEP = Plan(
    start="llava-tiny",
    tower_steps=1600,
    projector_steps=250,
    steps=860,
    knees=((500, 0.5), (600, 0.25), (800, 0.25), (860, 0.0)),
    captions=1.0,
    words=True,
    spelling=0.5,
    unwritten=0.7,
    jitter=2 / 3,
    dropped=0.6,
    blind=0.5,
    curriculum=1,
    lessons=(
        Lesson(0, 4, True, True, thorough=True, asked=ASKED_TO_SPELL),
        Lesson(400, 4, True, True, thorough=True, asked=ASKED_AND_READ),
        Lesson(600, 4, True, True, thorough=True, asked=(*ASKED_AND_READ, "count", "multiple choice"), merged=0.5),
    ),
    inserted=READ_LATE,
    deep_from=800,
    checkpoint_every=50,
)
PLANS = {
    "llava-tiny": Plan(
        knees=(
            *((1450, 1.0), (1650, 0.862), (2600, 0.862), (2850, 0.554142857), (3150, 0.554142857)),
            *((3500, 0.0), (3520, 0.35), (3600, 0.35), (3900, 0.0)),
        ),
        lessons=(
            Lesson(0, 4, False, False),
            Lesson(1050, 2, True, False),
            Lesson(1650, 2, True, True),
            Lesson(1950, 2, True, True, True, asked=ASKED_LATER),
            Lesson(2400, 2, True, True, True, True, ASKED_LATER),
            Lesson(2700, 4, True, True, True, True, ASKED_LATER),
            Lesson(2850, 4, True, True, True, True, ASKED_LAST),
            Lesson(3150, 4, True, True, True, True, ASKED_AT_THE_END),
            Lesson(3500, 4, True, True, True, True, ASKED_AT_THE_END, True),
        ),
    ),
    "llava-next-tiny": Plan(
        family="llava-next",
        start="llava-tiny",
        canvases=((1, 1), (1, 3), (3, 1)),
        first_seed=1_000_000,
        tower_steps=400,
        tower_batch=16,
        tower_rate=2e-3,
        steps=550,
        batch=8,
        rate=1e-3,
        other_rate=5e-4,
        knees=((150, 1.0), (350, 0.0), (360, 0.6), (420, 0.6), (550, 0.0)),
        curriculum=1,
        lessons=(*FINE_TUNING, replace(FINE_TUNING[0], first=350, asked=ASKED_TO_READ)),
        checkpoint_every=50,
    ),
    "llava-hr-tiny": Plan(
        family="llava-hr",
        start="llava-tiny",
        canvases=((1, 1), (2, 2), (2, 2)),
        first_seed=2_000_000,
        tower_steps=300,
        tower_batch=16,
        tower_rate=1e-3,
        steps=60,
        batch=16,
        rate=5e-4,
        other_rate=1e-3,
        warm_up=5,
        knees=((20, 1.0), (60, 0.0)),
        curriculum=1,
        lessons=FINE_TUNING,
        checkpoint_every=20,
    ),
    "llava-deep-tiny": DEEP,
    "llava-deep-tiny-b": replace(DEEP, seed=1, first_seed=4_000_000),
    "llava-deep-tiny-c": replace(DEEP, seed=2, first_seed=5_000_000),
}
"""The embedded models by name."""
