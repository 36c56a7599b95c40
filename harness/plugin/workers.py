"""Sharing the machine among pytest-xdist's workers: threads, CUDA devices, the order of the cells."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.cells import Cell
from harness.cluster.schedule import Ranks
from harness.cores import available_cores
from harness.models.family_names import ChosenModel
from harness.tasks.hub import known_commits

_HANDED = "fitprune"  # what a worker is told, in xdist's own message


@dataclass(frozen=True)
class Worker:
    """The place of this process in the run; without xdist it is the only one."""

    index: int = 0
    count: int = 1
    is_worker: bool = False
    folder: str = ""
    chosen: tuple[ChosenModel, ...] = ()
    commits: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: pytest.Config) -> "Worker":
        """Read what xdist handed to this process."""
        message = getattr(config, "workerinput", None)
        if message is None:
            return cls()
        handed = message[_HANDED]
        models = tuple(ChosenModel(*model) for model in handed["models"])
        digits = re.search(r"\d+", message["workerid"])
        index, devices = int(digits[0]) if digits else 0, tuple(handed["devices"])
        return cls(index, message["workercount"], True, handed["folder"], models, handed["commits"], devices)

    def limit_threads(self) -> None:
        """Give each worker cores / workers threads; a smaller OMP_NUM_THREADS stands. Alone, a process keeps
        torch's default.
        """
        if self.count < 2:
            return
        threads = max(1, available_cores() // self.count)
        asked = os.environ.get("OMP_NUM_THREADS", "")
        if asked.isdecimal() and int(asked) > 0:
            threads = min(threads, int(asked))
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported: its pools read it then
        import torch

        torch.set_num_threads(threads)

    def device(self, asked: str | None) -> str | None:
        """The device that was dealt to this worker, else the one asked for, or a CUDA device by turn; without CUDA None,
        the loader's choice.
        """
        if self.devices:
            return self.devices[self.index % len(self.devices)]
        if asked is not None:
            return asked
        import torch

        cards = torch.cuda.device_count()
        return f"cuda:{self.index % cards}" if cards else None


def hand_over(node: Any, folder: Path, chosen: Iterable[ChosenModel] = (), devices: Iterable[str] = ()) -> None:
    """Tell an xdist worker, before it starts, which folder the run shares, which models were taken for families' names, at
    which commits data sets of the hub are read, and which devices were dealt out.
    """
    models = [[model.asked, model.name, model.note] for model in chosen]
    handed = {"folder": str(folder), "commits": known_commits(), "models": models, "devices": list(devices)}
    node.workerinput[_HANDED] = handed


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell that a test runs; None for another test."""
    cell = item.callspec.params.get("cell") if hasattr(item, "callspec") else None
    return cell if isinstance(cell, Cell) else None


def cells_among(items: Iterable[pytest.Item]) -> list[Cell]:
    """The cells that tests run."""
    return [cell for cell in map(cell_of, items) if cell is not None]


def dealing_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """The order in which xdist deals cells out, so that workers find work instead of waiting for each other.

    Per model: first two cells that need a fitted recipe (fitting is the longest job, and xdist hands out two tests
    at the start, so that the second one should be a cell that must wait for it anyway); then the dense cells, which
    all others are compared with; then the methods that are not fitted; then the rest. Other tests come first.
    """
    models: dict[str, int] = {}
    ranks = Ranks(fitters=2)

    def rank(item: pytest.Item) -> tuple[int, int]:
        cell = cell_of(item)
        if cell is None:
            return -1, 0
        return models.setdefault(cell.model, len(models)), ranks.of(cell)

    return sorted(items, key=rank)
