"""List the registered methods: where they prune, which position ids they leave, which engine serves them. Loads no model."""

import argparse

from tabulate import tabulate

from baselines.registry import PRUNERS
from baselines.served import NOTE, SERVED, servable_in

HEADER = ("name", "prunes", "position ids", "servable in", "by")


def rows() -> list[tuple[str, ...]]:
    """One line per method, in the order of the tables."""
    table: list[tuple[str, ...]] = []
    for name, method in PRUNERS.items():
        room = method.__module__.split(".")
        where = room[1].replace("_", " ") if room[0] == "baselines" and len(room) > 2 else ""
        positions = next(str(field.default) for field in method.__dataclass_fields__.values() if field.name == "positions")
        table.append((name, where, positions, servable_in(name), SERVED.get(name, ("", ""))[1]))
    return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(options: argparse.Namespace) -> None:
    """Print the table and, below it, what servable means."""
    print(tabulate(rows(), HEADER, tablefmt="plain", disable_numparse=True))
    print("", NOTE, sep="\n")
