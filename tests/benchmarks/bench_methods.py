"""What does each method cost and save in a prefill? One row per method and budget, ratios to dense in the same run.

    python -m tests.benchmarks.bench_methods [--pruner NAME,NAME] [--reduction 0.3,0.5,0.7,0.9] [--strict off]
    python -m tests.benchmarks.bench_methods --model llava-1.5-7b --weights random --device cuda:0
    python -m tests.benchmarks.bench_methods --model llava-next-7b --weights random --image-size 672x672 --device cuda:0

A prefill is that of `harness.latency`: vision tower, projector, decoder. Prompts are noise, and weights are random unless real
ones are asked for. Without `--model` it is a LLaVA of 12 layers, 512 wide, in LLaVA-1.5's proportions: 576 visual tokens, a
CLIP tower with [CLS], a quarter as wide as the decoder and three quarters as deep. llava-1.5-7b has 576 visual tokens too,
llava-next-7b has 2880 at 672x672. Methods that prune videos are measured without `--model`, in a table of their own: on a
LLaVA-OneVision of the same proportions, whose prompt is a video of three frames, 589 visual tokens.

A method that is slower than dense at reduction 0.5 fails the run, unless its class says why in an attribute `slow`.
"""

import argparse
import copy
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from tabulate import tabulate
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

from baselines.registry import get_pruner_class
from fitprune import Pruner
from fitprune.arguments import TYPICAL_SIZE, Parser, exit_status, image_size, names, shares, whole
from harness.cost.flops import count
from harness.latency.asked import CHECKPOINT, RANDOM, Asked
from harness.latency.measure import Comparison, compare
from harness.latency.run import TimedModel, prompt_flops, reachable
from harness.latency.subject import Subject, device_name
from harness.models.spec import View
from tests.benchmarks.bench_prefill import random_llava

WARMUP = 1
JUDGED = 0.5
FRAMES, VIDEO_TOKEN = 3, 999
# A pruner's methods that are called on entering its context, or not at all while it prunes.
OUTSIDE = {"check", "notes", "observed_layers", "observed_tower_layers", "params", "for_reduction"}


@dataclass(frozen=True)
class Row:
    """A method at a budget; shares and ratios are of the dense prefill."""

    pruner: str
    reduction: float
    scoring_flops: float
    scoring_time: float
    flops: float
    compared: Comparison
    slow: str

    @property
    def fails(self) -> bool:
        """Slower than dense where it should not be, without a reason."""
        return self.reduction == JUDGED and self.compared.prefill_ratio > 1 and not self.slow

    def cells(self) -> list[str]:
        ratio, (first, third) = self.compared.prefill_ratio, self.compared.prefill_ratio_iqr
        return [
            f"{self.pruner} {self.reduction:g}",
            f"{self.scoring_flops:.2%}",
            f"{self.scoring_time:.2%}",
            f"{self.flops:.3f}",
            f"{ratio:.3f} ({first:.3f}–{third:.3f})",
            f"{ratio / self.flops:.2f}",
            f"{self.compared.working_memory_ratio:.2f}",
            self.slow,
        ]


class OwnTime:
    """Milliseconds that a pruner spends in its own code while it prunes: scoring and choosing, not the moving of tokens."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._spans: list[Callable[[], float]] = []

    def watch(self, pruner: Pruner) -> Pruner:
        """A copy of the pruner, each method of which that the runtime calls is timed."""
        watched = copy.copy(pruner)
        for name in dir(Pruner):
            own = getattr(type(pruner), name)
            if not name.startswith("_") and name not in OUTSIDE and callable(own) and own is not getattr(Pruner, name):
                setattr(watched, name, self._timed(getattr(pruner, name)))
        return watched

    def take(self) -> float:
        """The sum since the last call."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        spent, self._spans = sum(span() for span in self._spans), []
        return spent

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self._span():
                return method(*arguments, **options)

        return timed

    @contextmanager
    def _span(self) -> Iterator[None]:
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._spans.append(lambda: start.elapsed_time(end))
        else:
            began = time.perf_counter()
            yield
            spent = 1e3 * (time.perf_counter() - began)
            self._spans.append(lambda: spent)


def scoring_ms(model: Any, inputs: Mapping[str, torch.Tensor], pruner: Pruner, repeats: int) -> float:
    """The pruner's own milliseconds in a prefill, median of the repeats after warm-up."""
    own = OwnTime(inputs["input_ids"].device)
    subject = Subject(model, inputs, own.watch(pruner), new_tokens=1)
    spent = []
    for _ in range(WARMUP + repeats):
        subject.run()
        spent.append(own.take())
    return statistics.median(spent[WARMUP:])


def rows(timed: TimedModel, asked: Asked, cannot: list[dict[str, Any]], energy: bool = False) -> Iterator[Row]:
    """Every method at every budget that it reaches; the others are added to `cannot`. Energy if it is asked for."""
    (batch,) = asked.batch_sizes
    single, inputs = timed.prompt(asked, 1), timed.prompt(asked, batch)
    dense = prompt_flops(count(timed.model, single))
    options: dict[str, Any] = {"new_tokens": 1, "repeats": asked.repeats, "warmup": WARMUP, "energy": energy}
    for name, reduction, pruner, _, cost in reachable(asked, timed, single, cannot):
        compared = compare(timed.model, inputs, pruner, **options)
        yield Row(
            name,
            reduction,
            cost.scoring / dense,
            scoring_ms(timed.model, inputs, pruner, asked.repeats) / compared.dense.prefill_ms,
            prompt_flops(cost) / dense,
            compared,
            getattr(type(pruner), "slow", ""),
        )


def table(found: list[Row]) -> str:
    """Markdown."""
    header = ["pruner", "scoring FLOPs", "scoring time", "prefill FLOPs", "prefill time", "time / FLOPs", "working memory", ""]
    return tabulate([row.cells() for row in found], header, tablefmt="github", disable_numparse=True)


def random_model(width: int, layers: int, device: torch.device) -> TimedModel:
    """The model of the default run."""
    model = random_llava(width, layers, tower_width=width // 4, tower_layers=max(layers * 3 // 4, 2)).to(device)
    return TimedModel(model, device, RANDOM, View(576, (1, 3, 336, 336)), [], "the timed prompt, which is noise")


class VideoModel(TimedModel):
    """A LLaVA-OneVision with random weights, shown videos of noise in the midst of words."""

    @classmethod
    def random(cls, width: int, layers: int, device: torch.device) -> "VideoModel":
        """As `random_model`, but for the family: SigLIP's tower of 27 × 27 patches, frames pooled to 14 × 14, a newline."""
        side, heads = width // 4, max(width // 64, 1)
        sizes = {"hidden_size": side, "intermediate_size": side * 4, "num_attention_heads": max(side // 64, 1)}
        tower = SiglipVisionConfig(
            **sizes, num_hidden_layers=max(layers * 3 // 4, 2), image_size=384, patch_size=14, vision_use_head=False
        )
        decoder = Qwen2Config(
            hidden_size=width,
            intermediate_size=width * 43 // 16,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            vocab_size=VIDEO_TOKEN + 1,
        )
        config = LlavaOnevisionConfig(
            vision_config=tower, text_config=decoder, image_token_index=VIDEO_TOKEN - 1, video_token_index=VIDEO_TOKEN
        )
        torch.manual_seed(0)
        model = LlavaOnevisionForConditionalGeneration(config).eval().to(device)
        view = View(FRAMES * 14 * 14 + 1, (1, FRAMES, 3, 384, 384))
        return cls(model, device, RANDOM, view, [], "the timed prompt, which is noise")

    def prompt(self, asked: Asked, batch: int) -> dict[str, torch.Tensor]:
        text, visual = asked.text_tokens, self.view.tokens
        ids = torch.randint(3, 90, (batch, text + visual))
        ids[:, text // 2 : text // 2 + visual] = VIDEO_TOKEN
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs["pixel_values_videos"] = torch.randn(batch, FRAMES, 3, 384, 384)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}


def main(words: list[str] | None = None) -> int:
    """Print the table, with what it was measured on; the exit status is 1 when a method fails."""
    parser = Parser(description="What each method costs and saves in a prefill.")
    add = parser.add_argument
    add("--model", help="a registry name, hub id or folder; default: a small random LLaVA")
    add("--weights", choices=(RANDOM, CHECKPOINT), default=RANDOM, help="of --model (default random)")
    add("--pruner", type=names, default=(), help="default: all")
    add("--reduction", type=shares, default=(0.3, 0.5, 0.7, 0.9))
    add("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    add("--image-size", type=image_size, default=TYPICAL_SIZE, metavar="WxH", help=f"for --model (default {TYPICAL_SIZE})")
    add("--width", type=int, default=512, help="of the small random decoder")
    add("--layers", type=int, help="decoder layers (default 12; with --model all of them)")
    add("--batch-size", type=whole(), default=1)
    add("--text-tokens", type=whole(), default=64)
    add("--repeats", type=whole(), default=5)
    add("--strict", choices=("on", "off"), default="on", help="off: print only")
    return exit_status(lambda: report(parser.parse_args(words)))


def report(options: argparse.Namespace) -> int:
    """Measure and print; 1 when a method fails."""
    asked = Asked(
        options.model or "random LLaVA",
        options.pruner,
        options.reduction,
        (options.batch_size,),
        options.weights if options.model else RANDOM,
        options.image_size,
        options.text_tokens,
        1,
        options.repeats,
        options.device,
        options.layers,
    )
    asked.check()
    if options.model:
        return printed(TimedModel.of(asked), asked, options.strict == "on")
    width, layers, device = options.width, options.layers or 12, torch.device(options.device)
    on_videos = [name for name in asked.methods() if get_pruner_class(name).videos]
    status = 0
    if others := [name for name in asked.methods() if name not in on_videos]:
        timed = random_model(width, layers, device)
        timed.batches = [timed.prompt(asked, 1)]
        status = printed(timed, dataclasses.replace(asked, pruners=tuple(others)), options.strict == "on")
    if on_videos:
        asked = dataclasses.replace(asked, model="random LLaVA-OneVision, a video", pruners=tuple(on_videos))
        status |= printed(VideoModel.random(width, layers, device), asked, options.strict == "on")
    return status


def printed(timed: TimedModel, asked: Asked, strict: bool) -> int:
    """Print a model's table; 1 when a method fails."""
    cannot: list[dict[str, Any]] = []
    found = list(rows(timed, asked, cannot))
    print(
        f"{asked.model}, {asked.weights} weights, {timed.model.config.get_text_config().num_hidden_layers} decoder layers, "
        f"{timed.model.dtype}, {device_name(timed.device)}, {torch.get_num_threads()} threads, batch {asked.batch_sizes[0]}, "
        f"{timed.view.tokens} visual and {asked.text_tokens} text tokens; medians of {asked.repeats} paired repeats "
        "(quartiles); shares and ratios are of the dense prefill, tower and projector included.\n"
    )
    print(table(found))
    print("\n".join(["", *(f"{gap['pruner']} {gap['reduction']:g}: cannot: {gap['reason']}" for gap in cannot)]))
    failed = [row.pruner for row in found if row.fails]
    if failed:
        print(f"slower than dense at reduction {JUDGED:g}: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed) and strict)


if __name__ == "__main__":
    sys.exit(main())
