"""Print a script by which a shell completes commands, options, files, and names of models, methods and suites.

For bash: fitprune completion bash > ~/.local/share/bash-completion/completions/fitprune
"""

import argparse
from collections.abc import Iterable

from fitprune.arguments import one_of
from fitprune.errors import FitPruneError

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", type=one_of(*SHELLS), metavar="SHELL", help=f"the shell to write for: {', '.join(SHELLS)}")


def run(options: argparse.Namespace) -> None:
    """Print the script, which knows what is registered now."""
    try:
        import shtab
    except ImportError:
        raise FitPruneError("completion needs shtab: python -m pip install shtab") from None
    from baselines.registry import PRUNERS
    from harness.models.families import FAMILY_NAMES
    from harness.models.registry import MODELS
    from harness.published.tables import tables
    from harness.tasks.specs import SUITES

    parser = options.whole()
    known = {"model": [*MODELS, *FAMILY_NAMES], "pruner": [*PRUNERS, "all"], "suite": [*SUITES], "table": ["list", *tables()]}
    for action in _actions(parser):
        metavar = str(action.metavar)
        if action.dest in known:
            action.choices = known[action.dest]
        elif "FILE" in metavar:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif "DIR" in metavar:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))


def _actions(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    """What the parser takes, its commands' included."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for own in action.choices.values():
                yield from _actions(own)
