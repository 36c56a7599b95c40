"""Which pruning methods there are, by the name that the command line takes.

Other packages add theirs by an entry point of the group `fitprune.pruners`, name = "module:Class".
"""

import importlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING

from fitprune.errors import FitPruneError, unknown_name

if TYPE_CHECKING:
    from fitprune import Pruner

GROUP = "fitprune.pruners"

# In the order of the tables: the controls first, then by where they prune.
HOMES = {
    "dense": "baselines.controls.dense:Dense",
    "fitprune": "fitprune:FitPrune",
    "random": "baselines.controls.random_pruning:Random",
    "uniform": "baselines.controls.uniform:Uniform",
    "pool": "baselines.controls.pool:Pool",
    "downsample": "baselines.controls.downsample:Downsample",
    "tome": "baselines.in_tower.tome:ToMe",
    "fastv": "baselines.between_layers.fastv:FastV",
    "vtw": "baselines.between_layers.vtw:VTW",
    "pyramiddrop": "baselines.between_layers.pyramiddrop:PyramidDrop",
    "sparsevlm": "baselines.between_layers.sparsevlm:SparseVLM",
    "sparsevlm-plus": "baselines.between_layers.sparsevlm:SparseVLMPlus",
    "dart": "baselines.between_layers.dart:DART",
    "visionzip": "baselines.before_decoder.visionzip:VisionZip",
    "fastervlm": "baselines.before_decoder.fastervlm:FasterVLM",
    "vispruner": "baselines.before_decoder.vispruner:VisPruner",
    "prumerge": "baselines.before_decoder.prumerge:PruMerge",
    "hired": "baselines.before_decoder.hired:HiRED",
    "divprune": "baselines.before_decoder.divprune:DivPrune",
    "gprune": "baselines.before_decoder.gprune:GPrune",
    "scope": "baselines.before_decoder.scope:SCOPE",
}


class _Registry(Mapping[str, "type[Pruner]"]):
    """Names and classes; a class is imported when it is asked for, so that listing names does not load torch."""

    def __init__(self, homes: dict[str, str]) -> None:
        self._own = homes
        self._all: dict[str, str] | None = None

    @property
    def _homes(self) -> dict[str, str]:
        if self._all is None:
            found = dict(self._own)
            for entry in metadata.entry_points(group=GROUP):
                if found.get(entry.name, entry.value) != entry.value:
                    raise FitPruneError(
                        f"two pruners are called '{entry.name}': {found[entry.name]} and {entry.value}; "
                        "rename one, or uninstall its package."
                    )
                found[entry.name] = entry.value
            self._all = found
        return self._all

    def __getitem__(self, name: str) -> "type[Pruner]":
        home = self._homes[name]
        module, _, attribute = home.partition(":")
        try:
            loaded = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            if name in self._own:
                raise
            raise FitPruneError(f"pruner '{name}' cannot be loaded from {home}: {error}") from None
        if name not in self._own:
            _check(name, home, loaded)
        return loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def _check(name: str, home: str, loaded: object) -> None:
    """Raise FitPruneError unless what another package registered under `name` is a pruner of that name."""
    from fitprune import Pruner

    if not isinstance(loaded, type) or not issubclass(loaded, Pruner):
        raise FitPruneError(f"pruner '{name}' is registered as {home}, which is no subclass of fitprune.Pruner.")
    if getattr(loaded, "name", None) != name:
        raise FitPruneError(f"pruner '{name}' is registered as {home}, which calls itself {getattr(loaded, 'name', None)!r}.")


PRUNERS: Mapping[str, "type[Pruner]"] = _Registry(HOMES)


def get_pruner_class(name: str) -> "type[Pruner]":
    """The class registered under `name`.

    Raises:
        FitPruneError: there is none; the message gives the nearest names. Or another package's cannot be loaded.
    """
    if name not in PRUNERS:
        raise unknown_name("pruner", name, PRUNERS)
    return PRUNERS[name]
