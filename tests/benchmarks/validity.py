"""Measures what `fitprune validity` compares: printed tables, asked of each seed of the embedded model with 24 layers.

python -m tests.benchmarks.validity [OPTION …]     # options of `fitprune paper`; `tox run -e validity` calls it
"""

import itertools
import shlex
import subprocess
import sys

MODELS = ("llava-deep-tiny", "llava-deep-tiny-b", "llava-deep-tiny-c")
TABLES = ("tops-11", "eadp-1", "restore-1", "dart-1")
OPTIONS = ["--tokens", "64", "--suite", "gqa,textvqa,pope", "--limit", "200", "--results", "validity", "-o", "validity/pages"]


def commands(more: list[str]) -> list[list[str]]:
    """What is called, one after the other."""
    pairs = itertools.product(MODELS, TABLES)
    return [["fitprune", "paper", table, "--model", model, *OPTIONS, *more] for model, table in pairs]


if __name__ == "__main__":
    for command in commands(sys.argv[1:]):
        print(shlex.join(command), flush=True)
        if status := subprocess.run(command).returncode:
            sys.exit(status)
