"""FitPrune (arXiv 2409.10197): prune the visual tokens of a vision-language model, by a recipe fitted to a FLOPs budget."""

from fitprune.calibrate import Calibration, fit
from fitprune.errors import BudgetError, FitPruneError, RecipeError, UnsupportedModel
from fitprune.method import FitPrune
from fitprune.pruner import Pruner
from fitprune.recipe import Recipe
from fitprune.trace import Trace

__all__ = [
    "BudgetError",
    "Calibration",
    "FitPrune",
    "FitPruneError",
    "Pruner",
    "Recipe",
    "RecipeError",
    "Trace",
    "UnsupportedModel",
    "fit",
]
