"""The other methods: one file each, the same `Pruner` interface as FitPrune."""

from typing import Any

from baselines.registry import HOMES, PRUNERS

_NAMES = {home.partition(":")[2]: name for name, home in HOMES.items() if home.startswith("baselines.")}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return PRUNERS[_NAMES[name]]
