"""Time a model dense and pruned, in turn: prefill, decode, end to end, memory, KV cache, energy. The prompts are noise."""

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fitprune.errors import FitPruneError
from harness.commands.sizes import TYPICAL, image_size

if TYPE_CHECKING:
    from harness.latency.run import Asked

Number = TypeVar("Number", int, float)

HELP = "times, memory and energy of a model, dense and pruned"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="a registry name, a family's, a hub id or a local folder")
    add("--pruner", metavar="NAME[,NAME]", help="methods (default: all)")
    add("--reduction", default="0.5", metavar="R[,R]", help="shares of the visual tokens' decoder FLOPs to save (default 0.5)")
    add("--batch-size", default="1", metavar="N[,N]", help="prompts at a time (default 1)")
    add("--weights", choices=("checkpoint", "random"), default="checkpoint", help="random: the weights need not be here")
    add("--image-size", default=TYPICAL, metavar="WxH", help=f"size of the image (default {TYPICAL})")
    add("--text-tokens", type=int, default=64, metavar="N", help="text tokens of a prompt (default 64)")
    add("--new-tokens", type=int, default=16, metavar="N", help="tokens of an answer (default 16)")
    add("--repeats", type=int, default=10, metavar="N", help="timed repeats (default 10)")
    add("--device", metavar="NAME", help="cpu or cuda:N (default: the first GPU, or the CPU where there is none)")
    add("--layers", type=int, metavar="N", help="decoder layers, for random weights; recorded")
    add("--dtype", metavar="NAME", help="of the weights (default: the checkpoint's; real ones on the CPU are float32)")
    add("-o", "--output", type=Path, metavar="FILE.json", help="write everything that was measured")


def run(options: argparse.Namespace) -> None:
    """Print the table; write the record after each row."""
    output: Path | None = options.output
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise FitPruneError(f"cannot write {output}: {'it is a folder' if output.is_dir() else 'its folder does not exist'}")
    from harness.latency.rows import markdown
    from harness.latency.run import RANDOM, take
    from harness.models.family_names import announced
    from harness.results.atomic import write_atomically
    from harness.results.strict_json import strict

    def keep(record: object) -> None:
        if output is not None:
            write_atomically(output, [json.dumps(strict(record), indent=1, ensure_ascii=False, allow_nan=False), "\n"])

    options.model = announced(options.model, weights=options.weights != RANDOM).name
    record = take(_asked(options), command(options), keep)
    print(markdown(record))
    if not record["rows"] and record["cannot"]:
        raise FitPruneError("nothing that was asked for could be measured; the reasons stand above")


def _asked(options: argparse.Namespace) -> "Asked":
    from harness.latency.run import Asked

    return Asked(
        model=options.model,
        pruners=tuple(_words(options.pruner)) if options.pruner else (),
        reductions=_numbers("reduction", options.reduction, float),
        batch_sizes=_numbers("batch-size", options.batch_size, int),
        weights=options.weights,
        image_size=image_size(options.image_size),
        text_tokens=options.text_tokens,
        new_tokens=options.new_tokens,
        repeats=options.repeats,
        device=options.device,
        layers=options.layers,
        dtype=options.dtype,
    )


def command(options: argparse.Namespace) -> str:
    """The command line that measures the same again, quoted for a shell."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    defaults = vars(parser.parse_args(["--model", ""])) | {"output": options.output}
    given = {name: getattr(options, name) for name, default in defaults.items() if getattr(options, name) != default}
    words = ["python", "-m", "harness", "latency"]
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(name: str, text: str, kind: type[Number]) -> tuple[Number, ...]:
    try:
        return tuple(kind(word) for word in _words(text))
    except ValueError:
        raise FitPruneError(f"--{name} takes numbers with commas between them, not '{text}'") from None
