"""`python -m harness`: the commands of `harness.commands`."""

import sys
from collections.abc import Sequence

from fitprune.arguments import run_commands
from harness.commands import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    return run_commands("python -m harness", "Models and methods, and what prompts cost.", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
