"""Trains an embedded model: `python -m training llava-tiny`.

Two stages, as in LLaVA: first the vision tower, with labels of what each patch shows in place of CLIP's captions; then
projector and decoder, with the tower frozen, on questions and answers; a plan may insert layers in the midst of it and
give visual tokens other position ids. Where a plan has captions, the tower reads them together with a text tower, which
stands beside the model in `clip/`, in CLIPModel's layout. The siblings of llava-tiny start from its weights, and their
towers learn to give its features. Data are scenes of consecutive seeds, so a run is determined by its plan; one that was cut
off goes on from its last checkpoint when the command is given again. At the end the model is evaluated on held-out scenes,
and goes to its place in the package only if it meets the bars.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoProcessor, PreTrainedModel

from fitprune.arguments import Parser, exit_status
from fitprune.errors import FitPruneError, unknown_name
from harness.models.registry import EMBEDDED
from training.card import render
from training.evaluate import accuracies, by_canvas, generated, held_out, missed_bars, right_with_dropped
from training.families import FAMILIES
from training.plan import PLANS, Plan
from training.trainer import contrast_of, run

CACHE = Path("~/.cache/fitprune-bench/train")


def export(model: PreTrainedModel, family: str, folder: Path) -> None:
    """Writes model and processor: weights in bfloat16, to be loaded in float32 as the configuration says."""
    weights = {name: tensor.to(torch.bfloat16).clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)
    FAMILIES[family].make_processor().save_pretrained(folder)


def finish(
    name: str, model: PreTrainedModel, seconds: float, folder: Path, out: Path | None, plan: Plan, scenes: int, note: str
) -> int:
    """Saves, loads, evaluates and describes the model in `folder`, and copies it to `out`, if there is one, if it meets the
    bars; returns the exit status.
    """
    export(model, plan.family, folder)
    model = FAMILIES[plan.family].model_class.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    samples = held_out(scenes, canvases=plan.canvases)
    answers = generated(model, processor, samples, progress=True)
    half = right_with_dropped(model, processor, samples, dropped=0.5)
    rows = accuracies(samples, answers, half)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    card = render(name, model, plan, seconds, rows, by_canvas(samples, answers, half), scenes, digest, note)
    (folder / "README.md").write_text(card)
    print(card[card.index("## What it scores") :])
    missed = missed_bars(rows)
    if missed:
        print(f"{name} is not good enough, and stays in {folder}: {'; '.join(missed)}", file=sys.stderr)
        return 1
    if out is not None:
        shutil.copytree(folder, out, dirs_exist_ok=True)
    print(f"{name} is in {out or folder}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status: 1 where a bar is missed, 2 for what cannot be done."""
    parser = Parser(prog="python -m training", description="Train an embedded model and evaluate it.")
    parser.add_argument("name", help=f"one of: {', '.join(PLANS)}")
    parser.add_argument("--out", type=Path, help="where the model goes (default: a shipped one's to its place in the package)")
    parser.add_argument("--work", type=Path, help=f"where checkpoints go (default: {CACHE}/NAME)")
    parser.add_argument("--fresh", action="store_true", help="throw away the checkpoints in the work folder first")
    parser.add_argument("--steps", type=int, help="decoder steps, in place of the plan's")
    parser.add_argument("--tower-steps", type=int, help="tower steps, in place of the plan's")
    parser.add_argument("--processes", type=int, help="processes of one thread each (default: 2, or 1 with CUDA)")
    parser.add_argument("--scenes", type=int, default=400, help="held-out scenes to evaluate on (default: %(default)s)")
    parser.add_argument("--note", default="", help="what else the model card should say about this run")
    return exit_status(lambda: _train(parser.parse_args(arguments)))


def _train(options: argparse.Namespace) -> int:
    if options.name not in PLANS:
        raise unknown_name("embedded model", options.name, PLANS)
    plan = PLANS[options.name]
    plan = replace(
        plan,
        steps=plan.steps if options.steps is None else options.steps,
        tower_steps=plan.tower_steps if options.tower_steps is None else options.tower_steps,
    )
    processes = options.processes if options.processes is not None else 1 if torch.cuda.is_available() else 2
    if min(plan.steps, plan.tower_steps + 1, options.scenes, processes) < 1 or plan.batch % processes:
        raise FitPruneError(f"--steps, --scenes and --processes must be at least 1, and --processes divide {plan.batch}")
    if plan.inserted and plan.steps <= plan.deep_from:
        raise FitPruneError(f"--steps must be more than {plan.deep_from}, where {options.name} becomes deeper")
    work = options.work or CACHE.expanduser() / options.name
    if options.fresh:
        shutil.rmtree(work, ignore_errors=True)
    model, seconds = run(plan, work, processes)
    if plan.captions:
        contrast_of(plan, work).save(FAMILIES[plan.family].tower(model), work / "model" / "clip")
    out = options.out or EMBEDDED.get(options.name)
    return finish(options.name, model, seconds, work / "model", out, plan, options.scenes, options.note)


if __name__ == "__main__":
    sys.exit(main())
