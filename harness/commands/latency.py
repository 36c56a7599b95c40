"""Time a model dense and pruned, in turn: prefill, decode, end to end, memory, KV cache, energy. The prompts are noise."""

import argparse
import dataclasses
import json
from pathlib import Path

from fitprune.arguments import TYPICAL_SIZE, image_size, listed, names, one_of, shares, whole
from fitprune.errors import FitPruneError
from fitprune.files import check_target, write_atomically
from harness.commands.again import command_again
from harness.latency.asked import Asked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    count = whole()
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="a registry name, a family's, a hub id or a local folder")
    add("--pruner", type=names, default=(), metavar="NAME[,NAME]", help="methods (default: all)")
    add(
        "--reduction",
        type=shares,
        default=(0.5,),
        metavar="R[,R]",
        help="shares of the visual tokens' decoder FLOPs to save (default 0.5)",
    )
    add("--batch-size", type=listed(count), default=(1,), metavar="N[,N]", help="prompts at a time (default 1)")
    add(
        "--weights",
        type=one_of("checkpoint", "random"),
        default="checkpoint",
        metavar="checkpoint|random",
        help="random: the weights need not be here",
    )
    add(
        "--image-size", type=image_size, default=TYPICAL_SIZE, metavar="WxH", help=f"size of the image (default {TYPICAL_SIZE})"
    )
    add("--text-tokens", type=count, default=64, metavar="N", help="text tokens of a prompt (default 64)")
    add("--new-tokens", type=count, default=16, metavar="N", help="tokens of an answer (default 16)")
    add("--repeats", type=count, default=10, metavar="N", help="timed repeats (default 10)")
    add("--device", metavar="NAME", help="cpu or cuda:N (default: the first GPU, or the CPU where there is none)")
    add("--layers", type=count, metavar="N", help="decoder layers, for random weights; recorded")
    add("--dtype", metavar="NAME", help="of the weights (default: the checkpoint's; real ones on the CPU are float32)")
    add("-o", "--output", type=Path, metavar="FILE.json", help="write everything that was measured")


def run(options: argparse.Namespace) -> None:
    """Print the table; write the record after each row."""
    from harness.models.family_names import announced
    from harness.models.registry import find_model

    output: Path | None = options.output
    if output is not None:
        check_target(output)
    _asked(options).check()
    options.model = announced(options.model, weights=options.weights != "random").name
    find_model(options.model)

    from harness.latency.rows import markdown
    from harness.latency.run import take
    from harness.results.strict_json import strict

    def keep(record: object) -> None:
        if output is not None:
            write_atomically(output, [json.dumps(strict(record), indent=1, ensure_ascii=False, allow_nan=False), "\n"])

    record = take(_asked(options), command_again("latency", add_arguments, options, "output"), keep)
    print(markdown(record))
    if not record["rows"] and record["cannot"]:
        raise FitPruneError("nothing that was asked for could be measured; the reasons stand above")


def _asked(options: argparse.Namespace) -> Asked:
    named = {"pruner": "pruners", "reduction": "reductions", "batch_size": "batch_sizes"}
    fields = {field.name for field in dataclasses.fields(Asked)}
    given = {named.get(name, name): value for name, value in vars(options).items()}
    return Asked(**{name: value for name, value in given.items() if name in fields})
