"""`command_again`: the command line that repeats a command."""

import argparse
import shlex
from collections.abc import Callable, Collection
from typing import Any

from fitprune.arguments import Parser


def command_again(
    name: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    options: argparse.Namespace,
    never: str,
    always: Collection[str] = (),
) -> str:
    """`fitprune NAME …`, quoted for a shell: the options that are not their defaults, and those that `always` names, but not
    the one that `never` names.
    """
    parser = Parser()
    add_arguments(parser)
    words = ["fitprune", name]
    for option in (action.dest for action in parser._actions if action.dest in options and action.dest != never):
        value = getattr(options, option)
        if option in always or value != parser.get_default(option):
            words += [f"--{option.replace('_', '-')}", as_typed(value)]
    return shlex.join(words)


def as_typed(value: Any) -> str:
    """A value as it stands on a command line: lists with commas, numbers without needless digits."""
    if type(value) is tuple:
        return ",".join(map(as_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
