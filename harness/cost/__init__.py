"""What a prompt costs: FLOPs of tower, projector and decoder, and bytes."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.cost.flops import FlopCount, count

__all__ = [
    "FlopCount",
    "count",
]

# Imported when asked for: a command line that only checks its input should not wait for torch.
_HOMES = {
    "FlopCount": "flops",
    "count": "flops",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
