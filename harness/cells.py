"""One cell of the table: which it is, and what all cells of a run share. Light: importing it loads neither torch
nor lmms-eval.
"""

from dataclasses import dataclass, replace

DENSE = "dense"
AUTHORS = "authors"  # of the choices of position ids, the one of a method's authors
FITPRUNE = "fitprune"  # the method that is fitted on calibration samples, once per model for all budgets


@dataclass(frozen=True)
class Cell:
    """Model x pruner at a reduction x suite."""

    model: str
    pruner: str
    reduction: float | None  # None for dense, and for a recipe given as a file
    suite: str
    recipe: str = ""  # file of the recipe, if one was given
    positions: str = ""  # "kept" or "repacked" in place of what the method's authors do

    @property
    def is_dense(self) -> bool:
        """Whether this is the model as it is."""
        return self.pruner == DENSE

    @property
    def anywhere(self) -> "Cell":
        """The same without its suite: what is said of it holds on all of them."""
        return replace(self, suite="")

    @property
    def needs_fit(self) -> bool:
        """Whether a recipe must be fitted first."""
        return FITPRUNE in self.pruner.split("+") and not self.recipe

    def label(self, model: str | None = None) -> str:
        """`llava-tiny-fitprune-0.5`: the cell without its suite; `model` replaces the model's name."""
        parts = [
            model or self.model,
            self.pruner,
            "" if self.reduction is None else f"{self.reduction:g}",
            recipe_name(self.recipe),
            self.positions and f"ids-{self.positions}",
        ]
        return "-".join(part for part in parts if part)


@dataclass(frozen=True)
class CellSettings:
    """What all cells of a run share. `reductions` are the budgets that recipes are fitted for; with `allow_broken_images`
    questions whose pictures cannot be decoded count as wrong; `judge` is the endpoint that scores where a language model does;
    `frames` of each video are shown, None for each suite's own number.
    """

    data: str = "mini"
    limit: int | None = None
    batch_size: int = 16
    seed: int = 0
    reductions: tuple[float, ...] = ()
    allow_broken_images: bool = False
    judge: str = ""
    frames: int | None = None


def recipe_name(path: str) -> str:
    """A recipe file's name without folder and suffix."""
    return path.replace("\\", "/").rpartition("/")[2].removesuffix(".json")
