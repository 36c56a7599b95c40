"""Models: from a name, a hub id or a folder to a loaded model and its processor."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.models.loading import LoadedModel, load_model

__all__ = [
    "LoadedModel",
    "load_model",
]

# Imported when asked for: a command line that only checks its input should not wait for torch.
_HOMES = {
    "LoadedModel": "loading",
    "load_model": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
