"""FitPrune (arXiv 2409.10197): prune a vision-language model's visual tokens by a recipe fitted to a FLOPs budget."""

import importlib
from typing import TYPE_CHECKING, Any

from fitprune.errors import BudgetError, FitPruneError, RecipeError, UnsupportedModel

if TYPE_CHECKING:
    from fitprune.composed import Composed
    from fitprune.fitting.calibrate import Calibration, fit
    from fitprune.interface.attention import Attention
    from fitprune.interface.hooks import Hooks
    from fitprune.interface.selection import Selection
    from fitprune.interface.tokens import VisualTokens
    from fitprune.interface.tower import TowerTokens
    from fitprune.interface.trace import Trace
    from fitprune.interface.vision import Vision
    from fitprune.method import FitPrune
    from fitprune.models.sizes import DecoderSizes
    from fitprune.pruner import Pruner
    from fitprune.recipes.recipe import Recipe

__all__ = [
    "Attention",
    "BudgetError",
    "Calibration",
    "Composed",
    "DecoderSizes",
    "FitPrune",
    "FitPruneError",
    "Hooks",
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
_MODULES = {
    "Attention": "interface.attention",
    "Calibration": "fitting.calibrate",
    "Composed": "composed",
    "DecoderSizes": "models.sizes",
    "FitPrune": "method",
    "Hooks": "interface.hooks",
    "Pruner": "pruner",
    "Recipe": "recipes.recipe",
    "Selection": "interface.selection",
    "TowerTokens": "interface.tower",
    "Trace": "interface.trace",
    "Vision": "interface.vision",
    "VisualTokens": "interface.tokens",
    "fit": "fitting.calibrate",
}


def __getattr__(name: str) -> Any:
    if name in ("flops", "search"):
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
