"""The program `fitprune`: every command of the packages, by one name. A command's module is imported when it is asked for."""

import sys
from collections.abc import Sequence

from fitprune.arguments import Command, run_commands
from fitprune.cli import COMMANDS as OF_THE_METHOD
from harness.commands import COMMANDS as OF_THE_HARNESS

PROGRAM = "fitprune"
PURPOSE = (
    "Prune the visual tokens of vision-language models, and prove what it costs. "
    "The benchmark itself: pytest suites/, or away from a checkout pytest --pyargs suites"
)
COMMANDS = {
    **OF_THE_METHOD,
    **OF_THE_HARNESS,
    "report": Command("reports.command", "leaderboards from a results folder"),
    "paper": Command("reports.paper.command", "a published table cell by cell beside what is measured here"),
    "validity": Command("reports.validity.command", "how well a results folder foretells what papers print"),
    "completion": Command("reports.completion", "a script by which a shell completes these commands"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    return run_commands(PROGRAM, PURPOSE, COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
