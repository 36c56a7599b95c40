"""Models: from a name, a hub id or a folder to a loaded model and its processor."""

from typing import TYPE_CHECKING

from fitprune.lazy import importing

if TYPE_CHECKING:
    from harness.models.loading import LoadedModel, load_model

__all__ = ["LoadedModel", "load_model"]

__getattr__ = importing(__name__, dict.fromkeys(__all__, "harness.models.loading"))
