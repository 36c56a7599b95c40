"""FitPrune (arXiv 2409.10197): prune a vision-language model's visual tokens by a recipe fitted to a FLOPs budget."""

import importlib
from typing import TYPE_CHECKING, Any

from fitprune.errors import BudgetError, FitPruneError, RecipeError, UnsupportedModel

if TYPE_CHECKING:
    from fitprune.engine.tower import TowerTokens
    from fitprune.fitting.calibrate import Calibration, fit
    from fitprune.interface.attention import Attention
    from fitprune.interface.selection import Selection
    from fitprune.interface.tokens import VisualTokens
    from fitprune.interface.trace import Trace
    from fitprune.interface.vision import Vision
    from fitprune.method import FitPrune
    from fitprune.pruner import Pruner
    from fitprune.recipes.recipe import Recipe

__all__ = [
    "Attention",
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
    "VisualTokens",
    "fit",
]

# torch and transformers take seconds to import; a command line that only checks its input should not wait for them.
_HOMES = {
    "Attention": "interface.attention",
    "Calibration": "fitting.calibrate",
    "FitPrune": "method",
    "Pruner": "pruner",
    "Recipe": "recipes.recipe",
    "Selection": "interface.selection",
    "TowerTokens": "engine.tower",
    "Trace": "interface.trace",
    "Vision": "interface.vision",
    "VisualTokens": "interface.tokens",
    "fit": "fitting.calibrate",
}


def __getattr__(name: str) -> Any:
    if name in ("flops", "search"):
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
