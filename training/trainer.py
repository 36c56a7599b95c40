"""One process of a training run, and the processes of one run."""

from __future__ import annotations

import json
import os
import socket
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from harness.models.registry import EMBEDDED
from harness.scenes.draw import CHARACTERS, LABEL_SIZES
from harness.scenes.world import ALL_CLASSES, CELLS, COLORS, HELD_OUT_SEEDS, SHAPES, TRAIN_SEEDS
from training import packed
from training.batches import Batch, Batcher
from training.distil import Distillation
from training.families import FAMILIES
from training.muon import StackedMuon
from training.plan import ASKED, Plan

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "268435456"}
"""Keeps freed memory in the process: handing it back each step costs a third of the time."""
WORDS_FOR = {
    "shape": [" " + shape for shape in SHAPES],
    "color": [" " + color for color in COLORS],
    "character": list(CHARACTERS),
}
"""What the values of patch labels are called, from 1 on."""
CHECKPOINT = "checkpoint.pt"
WATCHED = HELD_OUT_SEEDS[50_000_000:50_000_032]
"""Scenes looked at during training; the final evaluation has others."""


class Heads(nn.Module):
    """What the tower is trained with, and which is thrown away after: labels of every patch, and the classes in the image
    from [CLS].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.ModuleDict({name: nn.Linear(width, size) for name, size in LABEL_SIZES.items()})
        self.image = nn.Linear(width, len(ALL_CLASSES))

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
        return loss, hits / max(1, total)


Named = Iterable[tuple[str, nn.Parameter]]


def optimizers(parameters: Named, muon_rate: float, other_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of layers, AdamW for the rest; each parameter once."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    seen: set[int] = set()
    for name, parameter in parameters:
        if parameter.requires_grad and id(parameter) not in seen:
            seen.add(id(parameter))
            (matrices if parameter.ndim == 2 and "layers." in name else rest).append(parameter)
    return [
        StackedMuon(matrices, lr=muon_rate),
        torch.optim.AdamW(rest, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.01, foreach=True),
    ]


class Trainer:
    """One process of a training run."""

    def __init__(self, plan: Plan, folder: Path, rank: int, world_size: int, device: torch.device) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.folder, self.rank, self.world_size, self.device = plan, folder, rank, world_size, device
        self.family = FAMILIES[plan.family]
        self.tokenizer = self.family.make_processor().tokenizer  # type: ignore[attr-defined]
        self.model = self.family.make_model(self.tokenizer, width=plan.width, layers=plan.layers)
        self.heads: nn.Module = Heads(plan.width)
        if plan.start:
            source = FAMILIES["llava"].model_class.from_pretrained(EMBEDDED[plan.start])
            self.family.start_from(self.model, source)
            self.heads = Distillation(self.family, self.model, source.to(device))
        self.model.to(device)
        self.model.lm_head.weight = self.model.get_input_embeddings().weight
        self.heads.to(device)
        self.batcher = Batcher(self.family, self.tokenizer, ASKED)
        self.labeller = Batcher(self.family, self.tokenizer)
        self.batchers = {lesson: Batcher(self.family, self.tokenizer, lesson.asked, lesson.thorough) for lesson in plan.lessons}
        self.seconds = 0.0

    def run(self) -> None:
        """Both stages, from the last checkpoint on."""
        stages = (
            (
                "tower",
                self.plan.tower_steps,
                self.tower_parameters(),
                self.tower_loss,
                self.plan.tower_rate,
                self.plan.tower_factor,
            ),
            (
                "decoder",
                self.plan.steps,
                self.other_parameters(),
                self.decoder_loss,
                self.plan.rate,
                self.plan.factor,
            ),
        )
        path = self.folder / CHECKPOINT
        saved = torch.load(path, map_location=self.device, weights_only=True) if path.exists() else None
        if saved:
            self.model.load_state_dict(saved["model"])
            self.heads.load_state_dict(saved["heads"])
            self.seconds = saved["seconds"]
        for number, (name, steps, parameters, loss_of, rate, factor) in enumerate(stages):
            if saved and saved["stage"] > number:
                continue
            opts = optimizers(parameters, rate, self.plan.other_rate)
            first = 0
            if saved and saved["stage"] == number:
                first = saved["step"]
                for opt, state in zip(opts, saved["optimizers"], strict=True):
                    opt.load_state_dict(state)
            self.stage(number, name, first, steps, opts, loss_of, factor)
            saved = None

    def tower_parameters(self) -> Named:
        """What the tower stage trains."""
        return chain(self.family.tower(self.model).named_parameters(), self.heads.named_parameters())

    def other_parameters(self) -> Named:
        """What the decoder stage trains: all of the model but its tower."""
        core, tower = self.model.model, set(self.family.tower(self.model).parameters())
        named = chain(*(module.named_parameters() for module in (core.multi_modal_projector, core.language_model, core)))
        return [(name, parameter) for name, parameter in named if parameter not in tower]

    def stage(
        self,
        number: int,
        name: str,
        first: int,
        steps: int,
        opts: list[torch.optim.Optimizer],
        loss_of: Callable[[int], tuple[Tensor, float]],
        factor: Callable[[int], float],
    ) -> None:
        """Steps `first` to `steps` of one stage, with checkpoints."""
        groups = [group for opt in opts for group in opt.param_groups]
        parameters = [parameter for group in groups for parameter in group["params"]]
        bar = tqdm(range(first, steps), initial=first, total=steps, desc=name, disable=self.rank != 0, mininterval=5)
        clock = time.monotonic()
        for step in bar:
            for group in groups:
                group["lr"] = group.setdefault("highest", group["lr"]) * factor(step)
            loss, right = loss_of(step)
            loss.backward()
            self.average(parameters)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            for opt in opts:
                opt.step()
                opt.zero_grad(set_to_none=True)
            done = step + 1
            if self.rank == 0 and done % 10 == 0:
                bar.set_postfix_str(f"loss {loss.item():.3f} right {right:.3f}", refresh=False)
            if self.rank == 0 and (done % self.plan.checkpoint_every == 0 or done == steps):
                now = time.monotonic()
                self.seconds, clock = self.seconds + now - clock, now
                self.checkpoint(number, done, opts)
                self.note(
                    {"stage": name, "step": done, "loss": loss.item(), "right": right, **(self.watched() if number else {})}
                )

    def note(self, facts: dict[str, object]) -> None:
        """Adds a line to the run's log."""
        with open(self.folder / "log.jsonl", "a") as log:
            print(json.dumps({"seconds": round(self.seconds), **facts}), file=log)

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

    def decoder_loss(self, step: int) -> tuple[Tensor, float]:
        """Answers, and projector outputs drawn towards the words for what a patch shows."""
        lesson = self.plan.lesson(step)
        most = round(2 + 6 * min(1.0, step / self.plan.curriculum))
        seeds = self.seeds(self.plan.tower_steps * self.plan.tower_batch, step, self.plan.batch)
        least, canvas = min(lesson.least, most // 2), self.plan.canvas(step)
        batch = self.batchers[lesson](seeds, least=least, most=most, canvas=canvas).to(self.device)
        scores, named, looks, visual, wasted = self.answer_scores(batch, lesson.calm)
        loss = F.cross_entropy(scores, batch.target) + self.plan.alignment * self.alignment(visual, batch, lesson.places)
        if lesson.mentions:
            loss = loss + self.plan.mentions * F.cross_entropy(named, batch.meant)
        if lesson.looks:
            loss = loss - self.plan.looks * (batch.shown * looks).sum() / batch.shown.sum().clamp(min=1)
        if lesson.calm:
            loss = loss + self.plan.calm * wasted
        return loss, (scores.argmax(1) == batch.target).float().mean().item()

    def answer_scores(self, batch: Batch, calm: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Vocabulary scores (N, vocabulary) where an answer token comes next, and where something was named; where named
        things are looked for; the projector's output; and, if `calm`, what attention wastes on patches that show nothing.
        """
        with self.precision():
            with torch.no_grad():
                patches, _ = self.family.features(self.model, batch.pixels, batch.canvas)
            visual = self.family.visual_tokens(self.model, patches, batch.canvas)
            start, user, _, line = (self.tokenizer.bos_token_id, *self.batcher.prefix)
            fixed = self.model.get_input_embeddings()(torch.tensor([start, user, line], device=self.device))
            fixed = fixed.expand(len(visual), 3, -1)
            prefix = torch.cat([fixed[:, :2], visual, fixed[:, 2:]], dim=1)
            blank = (batch.labels["shape"] + batch.labels["character"] == 0) if calm else None
            states, inner, looks, wasted = packed.text_states(
                self.model, prefix, batch.text, batch.groups, self.plan.depths, self.plan.look, batch.mentions, blank
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

    def precision(self) -> torch.autocast:
        """bfloat16 on CUDA; float32 on the CPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def average(self, parameters: list[Tensor]) -> None:
        """Mean of the gradients over processes."""
        if self.world_size == 1:
            return
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
        dist.all_reduce(flat)
        flat /= self.world_size
        start = 0
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
                start += parameter.numel()

    @torch.no_grad()
    def watched(self) -> dict[str, float]:
        """Share of questions about the watched scenes whose every answer token is right, by kind."""
        hits: dict[str, list[bool]] = {"all": []}
        for number, start in enumerate(range(0, len(WATCHED), 8)):
            batch = self.batcher(list(WATCHED[start : start + 8]), canvas=self.plan.canvas(number)).to(self.device)
            right = self.answer_scores(batch)[0].argmax(1) == batch.target
            for questions, spans in zip(batch.questions, batch.spans, strict=True):
                for question, (first, stop) in zip(questions, spans, strict=True):
                    hit = bool(right[first:stop].all())
                    hits["all"].append(hit)
                    hits.setdefault(question.kind, []).append(hit)
        return {kind: sum(found) / len(found) for kind, found in hits.items()}

    def checkpoint(self, stage: int, step: int, opts: list[torch.optim.Optimizer]) -> None:
        """Replaces the checkpoint, atomically."""
        state = {
            "stage": stage,
            "step": step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [opt.state_dict() for opt in opts],
        }
        unfinished = self.folder / "checkpoint.unfinished"
        torch.save(state, unfinished)
        os.replace(unfinished, self.folder / CHECKPOINT)


def _process(rank: int, world_size: int, port: int, plan: Plan, folder: str) -> None:
    if world_size > 1:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    Trainer(plan, Path(folder), rank, world_size, device).run()
    if world_size > 1:
        dist.destroy_process_group()


def run(plan: Plan, folder: Path, processes: int) -> tuple[PreTrainedModel, float]:
    """Carries a plan out in `processes` processes, from the last checkpoint in `folder` on; returns the model and the
    seconds that training took in all.

    Raises FileExistsError where the folder holds a run of another plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted, path = json.loads(json.dumps(asdict(plan))), folder / "plan.json"
    if path.exists() and json.loads(path.read_text()) != wanted:
        raise FileExistsError(
            f"{folder} holds a run of another plan; give another --work folder, or --fresh to start anew there"
        )
    path.write_text(json.dumps(wanted, indent=1))
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists() and not zipfile.is_zipfile(checkpoint):
        raise OSError(f"{checkpoint} is damaged; --fresh starts anew")
    if processes == 1:
        _process(0, 1, 0, plan, str(folder))
    else:
        _spawn(plan, folder, processes)
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    family = FAMILIES[plan.family]
    model = family.make_model(family.make_processor().tokenizer, width=plan.width, layers=plan.layers)  # type: ignore[attr-defined]
    model.load_state_dict(saved["model"])
    return model.eval(), saved["seconds"]


def _spawn(plan: Plan, folder: Path, processes: int) -> None:
    os.environ.update(MALLOC)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_process, args=(processes, port, plan, str(folder)), nprocs=processes, start_method="spawn")
