"""The loss of each step of a training run, on one process's share of the scenes, and how well the model answers meanwhile."""

from __future__ import annotations

from copy import deepcopy
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.registry import EMBEDDED
from harness.scenes.draw import CHARACTERS, LABEL_SIZES
from harness.scenes.world import ALL_CLASSES, CELLS, COLORS, HELD_OUT_SEEDS, SHAPES, TRAIN_SEEDS
from training import packed
from training.batches import Batch, Batcher
from training.contrast import Contrast
from training.distil import Distillation
from training.families import FAMILIES
from training.plan import ASKED, Plan
from training.position_ids import jittered
from training.views import LETTERS

WORDS_FOR = {
    "shape": [" " + shape for shape in SHAPES],
    "color": [" " + color for color in COLORS],
    "character": list(CHARACTERS),
}
"""What the values of patch labels are called, from 1 on."""

TURN = 24
"""Channels by which the embeddings of characters are turned for each place in a word."""

MOST_MERGED = 0.9
"""The share of the visual tokens that are merged at most."""

WATCHED = HELD_OUT_SEEDS[50_000_000:50_000_032]
"""Scenes looked at during training; the final evaluation has others."""


def without_characters(visual: Tensor, batch: Batch) -> Tensor:
    """Visual tokens, float (images, V, width), where those with a character in them are the mean of those that show nothing."""
    written = batch.labels["character"] > 0
    blank = (~written & (batch.labels["shape"] == 0)).float()[:, :, None]
    mean = (visual * blank).sum(dim=1, keepdim=True) / blank.sum(dim=1, keepdim=True)
    return torch.where(written[:, :, None], mean, visual)


def merged(visual: Tensor, keep: Tensor | slice, anchors: Tensor) -> Tensor:
    """Visual tokens, float (images, V, width), of which `keep`, their places, go on. Each of the others joins the one of
    `anchors`, some of those, to which its cosine is largest, and an anchor becomes the mean of itself and those that join it.
    """
    gone = torch.ones(visual.shape[1], dtype=torch.bool)
    gone[keep] = False
    unit = F.normalize(visual, dim=2)
    joins = F.one_hot((unit[:, gone] @ unit[:, anchors].transpose(1, 2)).argmax(dim=2), len(anchors)).to(visual.dtype)
    sums = visual[:, anchors] + joins.transpose(1, 2) @ visual[:, gone]
    return visual.index_copy(1, anchors.to(visual.device), sums / (1 + joins.sum(dim=1))[:, :, None])


class Heads(nn.Module):
    """What the tower is trained with: labels of every patch, and the classes in the image from [CLS], which are thrown away
    after; and captions, each with its weight in the loss. With `words`, labels spell what is written under a thing, too.
    """

    def __init__(self, width: int, labels: float = 1.0, captions: float = 0.0, words: bool = False) -> None:
        super().__init__()
        self.labels, self.captions = labels, captions
        sizes = LABEL_SIZES | (dict.fromkeys(LETTERS, LABEL_SIZES["character"]) if words else {})
        self.patch = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        self.image = nn.Linear(width, len(ALL_CLASSES))
        self.contrast = Contrast(width) if captions else None

    def forward(self, patches: Tensor, summary: Tensor | None, batch: Batch) -> tuple[Tensor, float]:
        """Loss, and the share of patch labels that are right where there is something to see."""
        assert summary is not None
        loss = F.binary_cross_entropy_with_logits(self.image(summary), batch.classes)
        hits, total = 0.0, 0.0
        for name, head in self.patch.items():
            scores, label = head(patches).flatten(0, 1), batch.labels[name].flatten()
            loss = loss + F.cross_entropy(scores, label)
            seen = label > 0
            hits, total = hits + (scores.argmax(1) == label)[seen].sum().item(), total + seen.sum().item()
        loss = self.labels * loss
        if self.contrast is not None:
            loss = loss + self.captions * self.contrast(summary, batch.scenes)
        return loss, hits / max(1, total)


class Losses:
    """The model of a plan, the heads that its tower is trained with, and the loss of each step on this process's scenes."""

    def __init__(self, plan: Plan, rank: int, world_size: int, device: torch.device) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.rank, self.world_size, self.device = plan, rank, world_size, device
        self.family = FAMILIES[plan.family]
        self.tokenizer = self.family.make_processor().tokenizer  # type: ignore[attr-defined]
        self.model = self.family.make_model(self.tokenizer, width=plan.width, layers=plan.layers)
        self.heads: nn.Module = Heads(plan.width, plan.labels, plan.captions, plan.words)
        if plan.start:
            source = FAMILIES["llava"].model_class.from_pretrained(EMBEDDED[plan.start])
            tower = deepcopy(self.family.tower(self.model).state_dict())
            self.family.start_from(self.model, source)
            self.distillation = Distillation(self.family, self.model, source.to(device), tower=not plan.captions)
            if plan.captions:
                self.family.tower(self.model).load_state_dict(tower)
            else:
                self.heads = self.distillation
        self.model.to(device)
        self.model.lm_head.weight = self.model.get_input_embeddings().weight
        self.heads.to(device)
        self.batcher = Batcher(self.family, self.tokenizer, ASKED)
        self.labeller = Batcher(self.family, self.tokenizer)
        self.batchers = {lesson: Batcher(self.family, self.tokenizer, lesson.asked, lesson.thorough) for lesson in plan.lessons}

    def seeds(self, start: int, step: int, batch: int) -> list[int]:
        """This process's share of a step's scenes."""
        share = batch // self.world_size
        first = TRAIN_SEEDS.start + self.plan.first_seed + start + step * batch + self.rank * share
        return list(range(first, first + share))

    def tower_loss(self, step: int) -> tuple[Tensor, float]:
        """Patch labels and classes in the image, or what another tower made of it."""
        seeds = self.seeds(0, step, self.plan.tower_batch)
        batch = self.labeller(seeds, canvas=self.plan.canvas(step)).to(self.device)
        with self.precision():
            patches, summary = self.family.features(self.model, batch.pixels, batch.canvas)
        return self.heads(patches.float(), summary if summary is None else summary.float(), batch)

    def projector_loss(self, step: int) -> tuple[Tensor, float]:
        """What the projector makes of the new tower's features against what `start`'s makes of its own tower's."""
        seeds = self.seeds(self.plan.tower_steps * self.plan.tower_batch, step, self.plan.tower_batch)
        batch = self.labeller(seeds, canvas=self.plan.canvas(step)).to(self.device)
        with self.precision(), torch.no_grad():
            patches, _ = self.family.features(self.model, batch.pixels, batch.canvas)
        loss, right = self.distillation(patches.float(), None, batch)
        if self.plan.spelling:
            loss = loss + self.plan.spelling * self.spelling(self.model.model.multi_modal_projector(patches.float()), batch)
        return loss, right

    def decoder_loss(self, step: int) -> tuple[Tensor, float]:
        """Answers, and projector outputs drawn towards the words for what a patch shows."""
        lesson = self.plan.lesson(step)
        most = round(2 + 6 * min(1.0, step / self.plan.curriculum))
        seeds = self.seeds(self.plan.scenes_before, step, self.plan.batch)
        least, canvas = min(lesson.least, most // 2), self.plan.canvas(step)
        batch = self.batchers[lesson](seeds, least=least, most=most, canvas=canvas).to(self.device)
        rng = np.random.default_rng([self.plan.seed, step])
        tokens = len(batch.cells)
        ids = jittered(tokens, self.plan.jitter, rng)
        merging = lesson.merged > 0 and rng.random() < lesson.merged
        order = rng.permutation(tokens)
        gone = round(rng.uniform(0, MOST_MERGED if merging else self.plan.dropped) * tokens)
        anchors = torch.from_numpy(order[: rng.integers(1, gone // 3 + 2)]) if merging and gone else None
        keep = torch.from_numpy(np.sort(order[gone:] if anchors is None else np.append(order[gone:], anchors)))
        layers = len(self.model.get_decoder().layers)
        blind = int(rng.integers(layers // 3 + 1)) if rng.random() < self.plan.blind else 0
        unwritten = bool(rng.random() < self.plan.unwritten)
        scores, named, looks, visual, wasted = self.answer_scores(
            batch, lesson.calm, ids, self.plan.depths_of(step), keep, blind, unwritten, anchors
        )
        loss = F.cross_entropy(scores, batch.target) + self.plan.alignment * self.alignment(visual, batch, lesson.places)
        if self.plan.spelling:
            loss = loss + self.plan.spelling * self.spelling(visual, batch)
        if lesson.mentions:
            loss = loss + self.plan.mentions * F.cross_entropy(named, batch.meant)
        if lesson.looks:
            loss = loss - self.plan.looks * (batch.shown[:, keep] * looks).sum() / batch.shown.sum().clamp(min=1)
        if lesson.calm:
            loss = loss + self.plan.calm * wasted
        return loss, (scores.argmax(1) == batch.target).float().mean().item()

    def answer_scores(
        self,
        batch: Batch,
        calm: bool = False,
        ids: Tensor | None = None,
        depths: tuple[int, ...] = (1, 2),
        keep: Tensor | slice = slice(None),
        blind: int = 0,
        unwritten: bool = False,
        anchors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Vocabulary scores (N, vocabulary) where an answer token comes next, and where something was named; where named
        things are looked for; the projector's output; and, if `calm`, what attention wastes on patches that show nothing.
        `ids` are all visual tokens', as `packed.text_states` takes them, `depths` where mentions are read, `keep` the visual
        tokens that the decoder sees, and `blind` the layers in which text does not; `unwritten`, tokens with a character show
        nothing; of the tokens kept, `anchors` stand for those that are not, too.
        """
        with self.precision():
            with torch.no_grad():
                patches, _ = self.family.features(self.model, batch.pixels, batch.canvas)
            visual = self.family.visual_tokens(self.model, patches, batch.canvas)
            seen = without_characters(visual, batch) if unwritten else visual
            if anchors is not None:
                seen = merged(seen, keep, anchors)
            start, user, _, line = (self.tokenizer.bos_token_id, *self.batcher.prefix)
            fixed = self.model.get_input_embeddings()(torch.tensor([start, user, line], device=self.device))
            fixed = fixed.expand(len(visual), 3, -1)
            prefix = torch.cat([fixed[:, :2], seen[:, keep], fixed[:, 2:]], dim=1)
            blank = (batch.labels["shape"] + batch.labels["character"] == 0)[:, keep] if calm else None
            ids = None if ids is None else torch.cat([ids[:-1][keep], ids[-1:]])
            states, inner, looks, wasted = packed.text_states(
                self.model, prefix, batch.text, batch.groups, depths, self.plan.look, batch.mentions, blank, ids, blind
            )
            early, late = (states.flatten(0, 1)[batch.mentions] for states in inner)
            chosen = torch.cat([states.flatten(0, 1)[batch.where], torch.where(batch.late[:, None], late, early)])
            answers, named = self.model.lm_head(chosen).float().split([len(batch.where), len(batch.mentions)])
            return answers, named, looks, visual, wasted

    def alignment(self, visual: Tensor, batch: Batch, places: bool) -> Tensor:
        """Cross-entropy of patches against the embeddings of their words: colour, shape and, if `places`, cell, or a
        character.
        """
        scores = (visual.float() @ self.model.lm_head.weight.T).flatten(0, 1).log_softmax(dim=1)
        losses = []
        for name, texts in WORDS_FOR.items():
            label = batch.labels[name].flatten()
            seen = label > 0
            tokens = torch.tensor([self.batcher.ids(text)[0] for text in texts], device=self.device)
            losses.append(-scores[seen].gather(1, tokens[label[seen] - 1][:, None]).flatten())
        if places:
            cells = torch.tensor([self.batcher.ids(" " + cell)[0] for cell in CELLS], device=self.device)
            seen = batch.labels["shape"].flatten() > 0
            targets = cells[batch.cells].repeat(len(visual))[seen]
            losses.append(-scores[seen].gather(1, targets[:, None]).flatten())
        return torch.cat(losses).mean()

    def spelling(self, visual: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the tokens of things, and of their characters, against what is written there: the n-th character is
        told by the embeddings of the characters, turned by n times TURN channels, so that its place is told, too.
        """
        tokens = torch.tensor([self.batcher.ids(text)[0] for text in CHARACTERS], device=self.device)
        embedded, losses = self.model.lm_head.weight[tokens], []
        for number, name in enumerate(LETTERS, 1):
            label = batch.labels[name]
            scores = visual.float()[label > 0] @ embedded.roll(number * TURN, dims=1).T
            losses.append(F.cross_entropy(scores, label[label > 0] - 1, reduction="none"))
        return torch.cat(losses).mean()

    def precision(self) -> torch.autocast:
        """bfloat16 on CUDA; float32 on the CPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    @torch.no_grad()
    def watched(self) -> dict[str, float]:
        """Share of questions about the watched scenes whose every answer token is right, by kind; where a plan has such steps,
        those about words and numbers without the tokens of characters, too.
        """
        hits: dict[str, list[bool]] = {"all": []}
        for number, start in enumerate(range(0, len(WATCHED), 8)):
            batch = self.batcher(list(WATCHED[start : start + 8]), canvas=self.plan.canvas(number)).to(self.device)
            for unwritten in (False, True) if self.plan.unwritten else (False,):
                right = self.answer_scores(batch, unwritten=unwritten)[0].argmax(1) == batch.target
                questions, spans = chain.from_iterable(batch.questions), chain.from_iterable(batch.spans)
                for question, (first, stop) in zip(questions, spans, strict=True):
                    kinds: tuple[str, ...] = ("all", question.kind)
                    if unwritten:
                        kinds = (f"{question.kind}, unwritten",) if question.kind in ("word", "number") else ()
                    for kind in kinds:
                        hits.setdefault(kind, []).append(bool(right[first:stop].all()))
        return {kind: sum(found) / len(found) for kind, found in hits.items()}
