"""`python -m harness.models.llava_hr SOURCE TARGET`: convert an authors' LLaVA-HR checkpoint."""

import argparse
import sys

from fitprune.errors import FitPruneError
from harness.models.llava_hr import convert_checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 2 for a checkpoint that cannot be converted."""
    parser = argparse.ArgumentParser(prog="python -m harness.models.llava_hr", description=__doc__.split(": ", 1)[1])
    parser.add_argument("source", help="folder of the authors' checkpoint: config.json, weights, tokenizer files")
    parser.add_argument("target", help="folder to write; it must not exist")
    options = parser.parse_args(arguments)
    try:
        folder = convert_checkpoint(options.source, options.target)
    except FitPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: ready for --model {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
