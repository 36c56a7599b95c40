"""Which pruning methods there are, by the name that the command line takes."""

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from fitprune.errors import unknown_name

if TYPE_CHECKING:
    from fitprune import Pruner


class _Registry(Mapping[str, "type[Pruner]"]):
    """Names and classes; a class is imported when it is asked for, so that listing names does not load torch."""

    def __init__(self, homes: dict[str, str]) -> None:
        self._homes = homes

    def __getitem__(self, name: str) -> "type[Pruner]":
        module, _, attribute = self._homes[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


PRUNERS: Mapping[str, "type[Pruner]"] = _Registry(
    {
        "dense": "baselines.dense:Dense",
        "fitprune": "fitprune:FitPrune",
        "fastv": "baselines.fastv:FastV",
        "random": "baselines.random:Random",
        "visionzip": "baselines.visionzip:VisionZip",
        "fastervlm": "baselines.fastervlm:FasterVLM",
        "vispruner": "baselines.vispruner:VisPruner",
        "prumerge": "baselines.prumerge:PruMerge",
        "hired": "baselines.hired:HiRED",
    }
)


def get_pruner_class(name: str) -> "type[Pruner]":
    """The class registered under `name`.

    Raises:
        FitPruneError: there is none; the message gives the nearest names.
    """
    if name not in PRUNERS:
        raise unknown_name("pruner", name, PRUNERS)
    return PRUNERS[name]
