"""FitPrune (arXiv 2409.10197): prune a vision-language model's visual tokens by a recipe fitted to a FLOPs budget."""

import importlib
from typing import TYPE_CHECKING, Any

from fitprune.errors import BudgetError, FitPruneError, RecipeError, UnsupportedModel

if TYPE_CHECKING:
    from fitprune.calibrate import Calibration, fit
    from fitprune.method import FitPrune
    from fitprune.pruner import Pruner
    from fitprune.recipe import Recipe
    from fitprune.selection import Selection
    from fitprune.tower import TowerTokens
    from fitprune.trace import Trace
    from fitprune.vision import Vision

__all__ = [
    "BudgetError",
    "Calibration",
    "FitPrune",
    "FitPruneError",
    "Pruner",
    "Recipe",
    "RecipeError",
    "Selection",
    "TowerTokens",
    "Trace",
    "UnsupportedModel",
    "Vision",
    "fit",
]

# torch and transformers take seconds to import; a command line that only checks its input should not wait for them.
_HOMES = {
    "Calibration": "calibrate",
    "FitPrune": "method",
    "Pruner": "pruner",
    "Recipe": "recipe",
    "Selection": "selection",
    "TowerTokens": "tower",
    "Trace": "trace",
    "Vision": "vision",
    "fit": "calibrate",
}


def __getattr__(name: str) -> Any:
    if name in ("flops", "search"):
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
