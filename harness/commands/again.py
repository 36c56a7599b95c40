"""`command_again`: the command line that repeats a command of `python -m harness`."""

import argparse
import shlex
from collections.abc import Callable, Collection
from typing import Any

from fitprune.arguments import Parser


def command_again(
    name: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    options: argparse.Namespace,
    always: Collection[str] = (),
    never: Collection[str] = (),
) -> str:
    """`python -m harness NAME …`, quoted for a shell: the options that are not their defaults, and those that `always` names,
    but none that `never` names.
    """
    parser = Parser()
    add_arguments(parser)
    words = ["python", "-m", "harness", name]
    for option, value in vars(options).items():
        if option not in never and (option in always or value != parser.get_default(option)):
            words += [f"--{option.replace('_', '-')}", as_typed(value)]
    return shlex.join(words)


def as_typed(value: Any) -> str:
    """A value as it stands on a command line: lists with commas, numbers without needless digits."""
    if type(value) is tuple:
        return ",".join(map(as_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
