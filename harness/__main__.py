"""The command line of the harness: `python -m harness models`, `… flops`, `… latency`, `… download`, `… gallery`."""

import argparse
import sys

from fitprune.errors import FitPruneError
from harness.commands import download, flops, gallery, latency, models

COMMANDS = {"models": models, "flops": flops, "latency": latency, "download": download, "gallery": gallery}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m harness", description="Models, and what their prompts cost.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.HELP, description=command.__doc__))
    options = parser.parse_args(arguments)
    try:
        COMMANDS[options.command].run(options)
    except FitPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
