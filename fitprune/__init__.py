"""FitPrune (arXiv 2409.10197): prune a vision-language model's visual tokens by a recipe fitted to a FLOPs budget."""

from typing import TYPE_CHECKING

from fitprune.errors import BudgetError, FitPruneError, RecipeError, UnsupportedModel
from fitprune.lazy import importing

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
    from fitprune.models.reader import Reader, give_reader
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
    "Reader",
    "Recipe",
    "RecipeError",
    "Selection",
    "TowerTokens",
    "Trace",
    "UnsupportedModel",
    "Vision",
    "VisualTokens",
    "fit",
    "give_reader",
]

__getattr__ = importing(
    __name__,
    {
        "Attention": "fitprune.interface.attention",
        "Calibration": "fitprune.fitting.calibrate",
        "Composed": "fitprune.composed",
        "DecoderSizes": "fitprune.models.sizes",
        "FitPrune": "fitprune.method",
        "Hooks": "fitprune.interface.hooks",
        "Pruner": "fitprune.pruner",
        "Reader": "fitprune.models.reader",
        "Recipe": "fitprune.recipes.recipe",
        "Selection": "fitprune.interface.selection",
        "TowerTokens": "fitprune.interface.tower",
        "Trace": "fitprune.interface.trace",
        "Vision": "fitprune.interface.vision",
        "VisualTokens": "fitprune.interface.tokens",
        "fit": "fitprune.fitting.calibrate",
        "give_reader": "fitprune.models.reader",
    },
    modules=("flops", "search"),
)
