"""`python -m harness.models.llava_hr SOURCE TARGET`: convert an authors' LLaVA-HR checkpoint."""

import sys

from fitprune.arguments import Parser, exit_status
from harness.models.llava_hr import convert_checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 2 for a checkpoint that cannot be converted."""
    parser = Parser(prog="python -m harness.models.llava_hr", description=__doc__.split(": ", 1)[1])
    parser.add_argument("source", help="folder of the authors' checkpoint: config.json, weights, tokenizer files")
    parser.add_argument("target", help="folder to write; it must not exist")

    def run() -> None:
        options = parser.parse_args(arguments)
        folder = convert_checkpoint(options.source, options.target)
        print(f"{folder}: ready for --model {folder}")

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
