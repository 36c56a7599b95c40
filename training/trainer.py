"""A training run: its stages, steps and checkpoints in one process, and the processes that share it."""

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
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from training.contrast import Contrast
from training.depth import deepen
from training.families import FAMILIES
from training.losses import Heads, Losses
from training.muon import StackedMuon
from training.plan import Plan

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "268435456"}
"""Keeps freed memory in the process: handing it back each step costs a third of the time."""
CHECKPOINT = "checkpoint.pt"
DEEPER = 3
"""The stage whose decoder has the inserted layers."""
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
    adam = torch.optim.AdamW(rest, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.01, foreach=True)
    return [StackedMuon(matrices, lr=muon_rate), adam] if matrices else [adam]


class Trainer:
    """One process of a training run."""

    def __init__(self, plan: Plan, folder: Path, rank: int, world_size: int, device: torch.device) -> None:
        self.plan, self.folder, self.rank, self.world_size, self.device = plan, folder, rank, world_size, device
        self.losses = Losses(plan, rank, world_size, device)
        self.model, self.heads = self.losses.model, self.losses.heads
        self.seconds = 0.0

    def run(self) -> None:
        """All stages, from the last checkpoint on."""
        plan, losses = self.plan, self.losses
        decoder = (self.other_parameters, losses.decoder_loss, plan.rate, plan.factor)
        stages = [
            ("tower", 0, plan.tower_steps, self.tower_parameters, losses.tower_loss, plan.tower_rate, plan.tower_factor),
            ("projector", 0, plan.projector_steps, self.projector, losses.projector_loss, 0.0, plan.projector_factor),
            ("decoder", 0, plan.deep_from if plan.inserted else plan.steps, *decoder),
            ("deeper decoder", plan.deep_from, plan.steps if plan.inserted else plan.deep_from, *decoder),
        ]
        path = self.folder / CHECKPOINT
        saved = torch.load(path, map_location=self.device, weights_only=True) if path.exists() else None
        if saved:
            if saved["stage"] == DEEPER:
                deepen(self.model, plan.inserted)
            self.model.load_state_dict(saved["model"])
            self.heads.load_state_dict(saved["heads"])
            self.seconds = saved["seconds"]
        for number, (name, first, steps, parameters, loss_of, rate, factor) in enumerate(stages):
            if first == steps or (saved and saved["stage"] > number):
                continue
            if number == DEEPER and not saved:
                deepen(self.model, plan.inserted)
            opts = optimizers(parameters(), rate, plan.other_rate)
            if saved and saved["stage"] == number:
                first = saved["step"]
                for opt, state in zip(opts, saved["optimizers"], strict=True):
                    opt.load_state_dict(state)
            self.stage(number, name, first, steps, opts, loss_of, factor)
            saved = None

    def tower_parameters(self) -> Named:
        """What the tower stage trains."""
        return chain(self.losses.family.tower(self.model).named_parameters(), self.heads.named_parameters())

    def projector(self) -> Named:
        """What the projector stage trains."""
        return self.model.model.multi_modal_projector.named_parameters()

    def other_parameters(self) -> Named:
        """What the decoder stage trains: all of the model but its tower."""
        core, tower = self.model.model, set(self.losses.family.tower(self.model).parameters())
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
                    {
                        "stage": name,
                        "step": done,
                        "loss": loss.item(),
                        "right": right,
                        **(self.losses.watched() if number > 1 else {}),
                    }
                )

    def note(self, facts: dict[str, object]) -> None:
        """Adds a line to the run's log."""
        with open(self.folder / "log.jsonl", "a") as log:
            print(json.dumps({"seconds": round(self.seconds), **facts}), file=log)

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
    deepen(model, plan.inserted)
    model.load_state_dict(saved["model"])
    return model.eval(), saved["seconds"]


def contrast_of(plan: Plan, folder: Path) -> Contrast:
    """What the finished run in `folder`, of a plan with captions, read them with."""
    heads = Heads(plan.width, captions=plan.captions, words=plan.words)
    heads.load_state_dict(torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)["heads"])
    assert heads.contrast is not None
    return heads.contrast


def _spawn(plan: Plan, folder: Path, processes: int) -> None:
    os.environ.update(MALLOC)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_process, args=(processes, port, plan, str(folder)), nprocs=processes, start_method="spawn")
