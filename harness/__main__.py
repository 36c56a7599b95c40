"""The command line of the harness: `python -m harness models`, `methods`, `flops`, `latency`, `tune`, `download`,
`gallery`."""

import sys

from fitprune.arguments import Parser, exit_status
from harness.commands import download, flops, gallery, latency, methods, models, tune

COMMANDS = {
    "models": models,
    "methods": methods,
    "flops": flops,
    "latency": latency,
    "tune": tune,
    "download": download,
    "gallery": gallery,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, 2 for input that cannot be used, or what the command says otherwise."""
    parser = Parser(prog="python -m harness", description="Models and methods, and what prompts cost.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.HELP, description=command.__doc__)
        command.add_arguments(own)
        own.set_defaults(run=command.run)

    def run() -> int | None:
        options = parser.parse_args(arguments)
        return options.run(options)

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
