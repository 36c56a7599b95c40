"""The command `fitprune`: every command of the packages, by one name. A command's module is imported when it is asked for."""

import importlib
import sys

from fitprune.arguments import exit_status
from fitprune.errors import unknown_name

# Name → the module whose `main` takes what follows, whether it wants the name too, and what it is for.
COMMANDS = {
    "fit": ("fitprune.__main__", True, "fit recipes for FLOPs budgets on calibration data"),
    "show": ("fitprune.__main__", True, "print a recipe, and draw the tokens it leaves in each layer"),
    "models": ("harness.__main__", True, "list the registered models"),
    "methods": ("harness.__main__", True, "list the registered methods, where they prune and which engine serves them"),
    "flops": ("harness.__main__", True, "what a prompt costs, dense and pruned"),
    "latency": ("harness.__main__", True, "times, memory and energy of a model, dense and pruned"),
    "tune": ("harness.__main__", True, "the most pruning whose drop is certified on every suite"),
    "gallery": ("harness.__main__", True, "pictures of what pruners keep"),
    "download": ("harness.__main__", True, "fetch a model"),
    "report": ("reports.__main__", False, "leaderboards from a results folder"),
    "paper": ("reports.paper.command", False, "a published table cell by cell beside what is measured here"),
    "validity": ("reports.__main__", True, "how well a results folder foretells what papers print"),
}


def main(arguments: list[str] | None = None) -> int:
    """Hand the command line on; the exit status is the command's, or 2 for a name that is none."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0

    def run() -> int:
        if given[0] not in COMMANDS:
            raise unknown_name("command", given[0], COMMANDS)
        module, named, _ = COMMANDS[given[0]]
        return importlib.import_module(module).main(given if named else given[1:])

    return exit_status(run)


def _help() -> str:
    lines = [f"  {name:<10}{purpose}" for name, (_, _, purpose) in COMMANDS.items()]
    return "\n".join(["usage: fitprune COMMAND …; fitprune COMMAND --help says what it takes", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
