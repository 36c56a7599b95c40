"""How long does a fit take, against the published procedure and against one plain forward? Ratios within one run.

    python -m tests.benchmarks.bench_fit [--model llava-tiny] [--samples 16] [--reduction 0.3,0.4,0.5,0.6]

The published procedure (tests/reference/published_fit.py) runs on the same model, samples, device and threads: once with its
Python loops and its re-reading of every image in every layer, once with neither. It is run for the first budget, and for all of
them, one after the other, as its authors' command line does. Without `--model`, a 12-layer LLaVA with random weights and 576
visual tokens.
"""

import argparse
import functools
import io
import time
from collections.abc import Callable, Iterator

import torch
from PIL import Image
from tabulate import tabulate
from transformers import CLIPImageProcessorPil

from fitprune import Calibration, FitPruneError
from harness.models.loading import load_model
from harness.models.prompting import encode
from harness.tasks.calibration import calibration_samples
from tests.benchmarks.bench_prefill import random_llava
from tests.reference.published_fit import PublishedFit


class Workload:
    """A model, samples as (PNG bytes, question), and how to turn one or several of them into the model's inputs."""

    def __init__(self, name: str | None, samples: int, width: int) -> None:
        if name:
            loaded = load_model(name, device="cpu")
            self.model = loaded.model
            self.samples = calibration_samples("mini", samples)
            self._encode = lambda images, questions: encode(loaded, questions, [[image] for image in images])
            return
        self.model = random_llava(width, 12)
        for layer in self.model.model.language_model.layers:
            # Random weights attend evenly; sharper queries make some tokens matter more than others.
            layer.self_attn.q_proj.weight.data.mul_(8)
        generator = torch.Generator().manual_seed(0)
        self.samples = [(_noise(generator), f"question {number}") for number in range(samples)]
        processor = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
        self._encode = lambda images, questions: self._random_prompt(processor(images, return_tensors="pt"), questions)

    def one(self, image: Image.Image, question: str) -> dict[str, torch.Tensor]:
        """Inputs of one sample."""
        return self._encode([image], [question])

    def batches(self, size: int) -> Iterator[dict[str, torch.Tensor]]:
        """Inputs of all samples, each read once."""
        for start in range(0, len(self.samples), size):
            chunk = self.samples[start : start + size]
            images = [Image.open(io.BytesIO(png)).convert("RGB") for png, _ in chunk]
            yield self._encode(images, [question for _, question in chunk])

    def _random_prompt(self, pixels: dict[str, torch.Tensor], questions: list[str]) -> dict[str, torch.Tensor]:
        ids = torch.full((len(questions), 5 + 576 + 40), self.model.config.image_token_id)
        for row, question in enumerate(questions):
            generator = torch.Generator().manual_seed(int(question.split()[1]))
            ids[row, :5], ids[row, -40:] = 1, torch.randint(2, 900, (40,), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels["pixel_values"]}


def _noise(generator: torch.Generator) -> bytes:
    pixels = torch.randint(0, 256, (24, 32, 3), dtype=torch.uint8, generator=generator)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).resize((640, 480)).save(file, "PNG")
    return file.getvalue()


def seconds(work: Callable[[], object]) -> float:
    """Of processor time where one thread does the work, so that other processes do not count; else of wall clock."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    work()
    return clock() - start


def table(work: Workload, reductions: list[float], batch: int) -> str:
    """The markdown table."""

    def published(**inefficiencies: bool) -> list[float]:
        """For the first budget and for all: its command line takes one, so the time of several is a sum."""
        taken = []
        for reduction in reductions:
            procedure = PublishedFit(work.model, work.samples, work.one, **inefficiencies)
            taken.append(seconds(functools.partial(procedure.run, reduction)))
        return [taken[0], sum(taken)]

    def ours(budgets: list[float], mode: str) -> None:
        calibration = Calibration(work.model, work.batches(batch), mode=mode, progress=False)
        for reduction in budgets:
            calibration.recipe(reduction)

    def fitted(mode: str) -> list[float]:
        return [seconds(functools.partial(ours, budgets, mode)) for budgets in (reductions[:1], reductions)]

    def plain() -> None:
        for inputs in work.batches(batch):
            with torch.no_grad():
                work.model(**inputs)

    next(iter(work.batches(batch)))
    plain()
    rows = {
        "one plain forward": [seconds(plain)] * 2,
        "published, as its authors run it": published(),
        "published, no Python loops, images read once": published(loops=False, read_again=False),
        "fit, sequential": fitted("sequential"),
        "fit, one-pass": fitted("one-pass"),
    }
    forward, literal, lean = (list(rows.values())[place] for place in range(3))
    lines = []
    for name, taken in rows.items():
        line = [name]
        for place, value in enumerate(taken):
            line += [f"{value:.1f} s", f"{value / forward[place]:.2f}"]
            line += [f"{literal[place] / value:.1f}×", f"{lean[place] / value:.1f}×"] if name.startswith("fit") else ["", ""]
        lines.append(line)
    header = ["procedure"]
    for budgets in (1, len(reductions)):
        label = f"{budgets} budget{'s' if budgets > 1 else ''}"
        header += [label, "forwards", "faster than published", "than without loops"]
    return tabulate(lines, header, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Print the table, with what it was measured on."""
    parser = argparse.ArgumentParser(description="Seconds of a fit, and ratios to the published procedure.")
    parser.add_argument("--model", help="a registry name, hub id or local folder; default: a random LLaVA")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--width", type=int, default=256, help="of the random decoder")
    parser.add_argument("--reduction", default="0.5,0.3,0.4,0.7")
    arguments = parser.parse_args()
    try:
        work = Workload(arguments.model, arguments.samples, arguments.width)
    except FitPruneError as error:
        parser.error(str(error))
    threads = torch.get_num_threads()
    print(
        f"{arguments.model or f'random LLaVA, 12 layers, {arguments.width} wide'}, {arguments.samples} samples, reductions "
        f"{arguments.reduction}; {threads} thread{'s' if threads > 1 else ''}, batch {arguments.batch_size} (published: 1).\n"
    )
    print(table(work, [float(part) for part in arguments.reduction.split(",")], arguments.batch_size))


if __name__ == "__main__":
    main()
