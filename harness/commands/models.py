"""List the registered models: what they are, what they need, whether their weights are here. Reads headers only."""

import argparse
import sys

from tabulate import tabulate

from fitprune.arguments import TYPICAL_SIZE, Size, image_size
from fitprune.errors import FitPruneError
from harness.models.checkpoint import checkpoint_folder, weight_files
from harness.models.families import FAMILY_NAMES
from harness.models.family_names import choose_model, how_to_get
from harness.models.gpu_memory import decoder_sizes, gpu_bytes
from harness.models.registry import MODELS
from harness.models.shipped import family_of, read_config
from harness.models.spec import ModelSpec
from harness.models.tensors import parameters

HEADER = ("name", "family", "parameters", "visual tokens ({})", "layers", "GPU memory", "revision", "weights")


def cells(spec: ModelSpec, size: Size) -> list[str]:
    """A model's line of the table, for an image of this size; without its weights, of which each machine has its own."""
    config = read_config(spec)
    family = family_of(spec, config)
    total = spec.parameters
    if total is None:
        total = sum(parameters(path) for path in weight_files(checkpoint_folder(spec)))
    view = family.view(config, *size)
    memory = gpu_bytes(config, total, spec.dtype, view)
    revision = spec.revision[:8] if spec.revision else "unpinned" if spec.kind == "hub" else "–"
    return [
        *(spec.name, family.model_type, _count(total), str(view.tokens), str(decoder_sizes(config)[0])),
        *(f"{memory / 1e9:.1f} GB", revision),
    ]


def _weights(spec: ModelSpec) -> str:
    """Whether they are on this machine, in a word or two."""
    if spec.kind == "embedded":
        return "embedded"
    if spec.convert:
        return "to convert"
    try:
        weight_files(checkpoint_folder(spec))
    except FitPruneError:
        return "not here"
    return "here"


def markdown(size: Size) -> str:
    """The table of docs/models.md: what does not depend on the machine."""
    table = []
    for spec in MODELS.values():
        name, _, *rest = cells(spec, size)
        table.append([f"`{name}`", spec.source if spec.kind == "hub" else spec.notes, *rest])
    header = [HEADER[0], "weights", *_header(size)[2:7]]
    return tabulate(table, header, tablefmt="pipe", disable_numparse=True)


def _header(size: Size) -> list[str]:
    return [title.format(size) for title in HEADER]


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} G" if number >= 1e9 else f"{number / 1e6:.3g} M"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image",
        type=image_size,
        default=TYPICAL_SIZE,
        metavar="WxH",
        help=f"image of the visual tokens (default {TYPICAL_SIZE})",
    )
    parser.add_argument("--markdown", action="store_true", help="the table of docs/models.md")


def run(options: argparse.Namespace) -> None:
    """Print the table and, on the standard error, what families' names stand for on this machine."""
    if options.markdown:
        print(markdown(options.image))
        return
    table = [(*cells(spec, options.image), _weights(spec)) for spec in MODELS.values()]
    header = _header(options.image)
    align = ["right" if 2 <= column <= 5 else "left" for column in range(len(header))]
    print(tabulate(table, header, tablefmt="plain", disable_numparse=True, colalign=align))
    print("", *families(), sep="\n", file=sys.stderr)


def families() -> list[str]:
    """A line for each family's name: the model that it takes on this machine, and how to get the other."""
    lines = []
    for name, family in FAMILY_NAMES.items():
        try:
            lines.append(choose_model(name).note)
        except FitPruneError:
            lines.append(f"{name}: nothing here; {how_to_get(MODELS[family.standard])}")
    return lines
