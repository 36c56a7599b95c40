"""`python -m reports DIR`, and `python -m reports validity DIR`."""

import sys
from collections.abc import Sequence

from fitprune.arguments import run_command
from reports import command
from reports.validity import command as validity


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["validity"]:
        return run_command("python -m reports validity", validity, given[1:])
    return run_command("python -m reports", command, given)


if __name__ == "__main__":
    sys.exit(main())
