"""List the registered methods: their kinds, the position ids they leave, the engines that serve them. Loads no model."""

import argparse
import inspect
import re
from typing import TYPE_CHECKING

from tabulate import tabulate

from baselines.registry import CLASS_PATHS, PRUNERS
from baselines.served import NOTE, SERVED, servable_in

if TYPE_CHECKING:
    from fitprune import Pruner

HEADER = ("name", "kind", "position ids", "servable in", "by")


def rows() -> list[tuple[str, ...]]:
    """One line per method, in the order of the tables."""
    table: list[tuple[str, ...]] = []
    for name, method in PRUNERS.items():
        room = method.__module__.split(".")
        kind = room[1].replace("_", " ") if room[0] == "baselines" and len(room) > 2 else ""
        kind = "in every layer" if room[0] == "fitprune" else kind
        positions = next(str(field.default) for field in method.__dataclass_fields__.values() if field.name == "positions")
        table.append((name, kind, positions, servable_in(name), SERVED.get(name, ("", ""))[1]))
    return table


def markdown() -> str:
    """The table of docs/methods.md: this package's methods, each with its paper and its rule in a line, as its source says."""
    table = []
    for name, kind, positions, engine, _ in rows():
        if name in CLASS_PATHS:
            method = PRUNERS[name]
            rule = (inspect.getdoc(inspect.getmodule(method)) or "").split("\n\n")[0].partition(": ")[2].rstrip(".")
            table.append((f"`{name}`", _paper(method), kind, rule, positions, engine))
    return tabulate(table, ("name", "paper", "kind", "rule", *HEADER[2:4]), tablefmt="pipe", disable_numparse=True)


def _paper(method: "type[Pruner]") -> str:
    """A link to the paper that the docstring of a method names first, or that of a base; a dash for none."""
    for base in method.__mro__:
        if found := re.search(r"arXiv (\d{4}\.\d{5})( v\d)?", vars(base).get("__doc__") or ""):
            return f"[{found[1]}](https://arxiv.org/abs/{found[1]}){found[2] or ''}"
    return "–"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="the table of docs/methods.md, with papers and rules")


def run(options: argparse.Namespace) -> None:
    """Print the table and, below it, what servable means."""
    if options.markdown:
        print(markdown())
        return
    print(tabulate(rows(), HEADER, tablefmt="plain", disable_numparse=True))
    print("", NOTE, sep="\n")
