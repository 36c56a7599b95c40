"""Models: from a name, a hub id or a folder to a loaded model and its processor."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.models.loading import LoadedModel, load_model

__all__ = ["LoadedModel", "load_model"]


def __getattr__(name: str) -> Any:
    """The public names, on first use: listing models must not wait for what loading one takes."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from harness.models import loading

    return getattr(loading, name)
