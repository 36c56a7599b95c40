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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from tabulate import tabulate
from transformers import CLIPImageProcessorPil

from fitprune import Calibration, FitPruneError
from fitprune.models.sizes import visual_tokens
from fitprune.search.prompts import on_device
from harness.models.loading import load_model
from harness.models.prompting import encode
from harness.tasks.calibration import calibration_samples
from tests.benchmarks.bench_prefill import random_llava
from tests.benchmarks.clock import seconds
from tests.reference.published_fit import PublishedFit


@dataclass(frozen=True)
class Workload:
    """A model, samples as (PNG bytes, question), and how to turn several of them into the model's inputs."""

    model: Any
    samples: list[tuple[bytes, str]]
    encode: Callable[[list[Image.Image], list[str]], Mapping[str, torch.Tensor]]

    @classmethod
    def named(cls, name: str, samples: int) -> "Workload":
        """A model with its weights, on calibration samples of the package."""
        loaded = load_model(name, device="cpu")
        encoded = functools.partial(encode, loaded)
        return cls(
            loaded.model,
            calibration_samples("mini", samples),
            lambda images, texts: encoded(texts, [[image] for image in images]),
        )

    @classmethod
    def random(cls, model: Any, samples: int) -> "Workload":
        """A LLaVA-1.5 with random weights, on noise: sixteen images, and words that differ from sample to sample."""
        generator = torch.Generator().manual_seed(0)
        images = [_noise(generator) for _ in range(min(samples, 16))]
        side, visual = model.config.vision_config.image_size, visual_tokens(model.config)
        ids = range(5, model.config.get_text_config().vocab_size)  # below are special ones
        words = torch.tensor([word for word in ids if word != model.config.image_token_id])
        processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})

        def prompts(read: list[Image.Image], questions: list[str]) -> dict[str, torch.Tensor]:
            ids = torch.full((len(questions), 5 + visual + 40), model.config.image_token_id)
            for row, question in enumerate(questions):
                drawn = torch.Generator().manual_seed(int(question.split()[1]))
                ids[row, :5], ids[row, -40:] = 1, words[torch.randint(len(words), (40,), generator=drawn)]
            pixels = processor(read, return_tensors="pt")["pixel_values"]
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}

        return cls(model, [(images[place % len(images)], f"question {place}") for place in range(samples)], prompts)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def first(self, samples: int) -> "Workload":
        """The same with so many of the samples."""
        return replace(self, samples=self.samples[:samples])

    def one(self, image: Image.Image, question: str) -> dict[str, Any]:
        """Inputs of one sample, on the model's device."""
        return on_device(self.model, self.encode([image], [question]))

    def batches(self, size: int) -> Iterator[Mapping[str, torch.Tensor]]:
        """Inputs of all samples, each read once."""
        for start in range(0, len(self.samples), size):
            chunk = self.samples[start : start + size]
            images = [Image.open(io.BytesIO(png)).convert("RGB") for png, _ in chunk]
            yield self.encode(images, [question for _, question in chunk])

    def published(self, reduction: float, **inefficiencies: bool) -> float:
        """Seconds of the published procedure for one budget."""
        procedure = PublishedFit(self.model, self.samples, self.one, **inefficiencies)
        return seconds(functools.partial(procedure.run, reduction), self.device)

    def fit(self, reductions: list[float], mode: str, batch: int) -> float:
        """Seconds of a fit for all the budgets."""

        def work() -> None:
            calibration = Calibration(self.model, self.batches(batch), mode=mode, progress=False)
            for reduction in reductions:
                calibration.recipe(reduction)

        return seconds(work, self.device)

    def forward(self, batch: int) -> float:
        """Seconds of one plain forward of all samples."""

        def work() -> None:
            for inputs in self.batches(batch):
                with torch.no_grad():
                    self.model(**on_device(self.model, inputs))

        return seconds(work, self.device)


def random_workload(samples: int, width: int) -> Workload:
    """A small one."""
    return Workload.random(sharpened(random_llava(width, 12)), samples)


def sharpened(model: Any) -> Any:
    """The model with sharper queries: small random weights attend evenly, and no token would matter more than others."""
    for layer in model.model.language_model.layers:
        layer.self_attn.q_proj.weight.data.mul_(8)
    return model


def _noise(generator: torch.Generator) -> bytes:
    pixels = torch.randint(0, 256, (24, 32, 3), dtype=torch.uint8, generator=generator)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).resize((640, 480)).save(file, "PNG")
    return file.getvalue()


def table(work: Workload, reductions: list[float], batch: int) -> str:
    """The markdown table."""

    def published(**inefficiencies: bool) -> list[float]:
        """For the first budget and for all: its command line takes one, so the time of several is a sum."""
        taken = [work.published(reduction, **inefficiencies) for reduction in reductions]
        return [taken[0], sum(taken)]

    def fitted(mode: str) -> list[float]:
        return [work.fit(budgets, mode, batch) for budgets in (reductions[:1], reductions)]

    work.forward(batch)
    rows = {
        "one plain forward": [work.forward(batch)] * 2,
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
        asked = arguments.samples
        work = Workload.named(arguments.model, asked) if arguments.model else random_workload(asked, arguments.width)
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
