"""`python -m fitprune`: the commands `fit` and `show`."""

import sys
from collections.abc import Sequence

from fitprune.arguments import run_commands
from fitprune.cli import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    return run_commands("python -m fitprune", "Prune a vision-language model's visual tokens.", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
