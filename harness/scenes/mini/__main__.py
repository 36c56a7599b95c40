"""`python -m harness.scenes.mini`."""

import sys
from collections.abc import Sequence

from fitprune.arguments import run_command
from harness.scenes.mini import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run_command("python -m harness.scenes.mini", command, arguments)


if __name__ == "__main__":
    sys.exit(main())
