"""Download a registered model from the hub, at the commit that it is pinned to."""

import argparse

from harness.models.checkpoint import download
from harness.models.families import FAMILY_NAMES
from harness.models.registry import find_model

HELP = "download a model at its pinned revision"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="NAME", help="a registry name, a family's (its standard checkpoint), or a hub id (its latest revision)"
    )


def run(options: argparse.Namespace) -> None:
    """Print where the model is and, for one in its authors' layout, the command that converts it."""
    family = FAMILY_NAMES.get(options.model)
    spec = find_model(options.model if family is None else family.standard)
    folder = download(spec)
    print(folder)
    if spec.convert:
        print(f"next: {spec.convert.replace('SOURCE', str(folder)).replace('TARGET', spec.name)}")
