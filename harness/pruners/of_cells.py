"""`CellPruners`: the pruner of each cell of a run, at the cell's budget."""

import dataclasses
from typing import Any

from baselines.registry import get_pruner_class
from fitprune import FitPruneError, Pruner
from harness.cells import DENSE, FITPRUNE, Cell, CellSettings
from harness.models.facts import ModelFacts
from harness.pruners.calibrated import Calibrated
from harness.pruners.solve import from_recipe, solve
from harness.tasks.specs import frames_shown, shows_videos


def alike(cell: Cell) -> Cell:
    """What cells with the same pruner have in common: all but the suite, where that shows pictures. Videos are of other numbers
    of tokens from suite to suite.
    """
    return cell if shows_videos(cell.suite) else cell.anywhere


class CellPruners:
    """Makes the pruners of a run's cells."""

    def __init__(self, settings: CellSettings, calibrated: Calibrated) -> None:
        self.settings = settings
        self.calibrated = calibrated

    def of(self, cell: Cell, facts: ModelFacts) -> Pruner:
        """The cell's pruner, for the model that `facts` are of. Raises BudgetError if the budget is out of its reach,
        UnsupportedModel if the model's position ids cannot be as they should.
        """
        if cell.is_dense:
            return get_pruner_class(DENSE)()
        pruner = self._as_the_authors_have_it(cell, facts)
        if cell.positions:
            pruner = dataclasses.replace(pruner, positions=cell.positions)
        for member in pruner.members:
            member.require_positions(facts.config)
        return pruner

    def _as_the_authors_have_it(self, cell: Cell, facts: ModelFacts) -> Pruner:
        if cell.recipe:
            return from_recipe(cell.recipe, facts.config)
        if cell.reduction is None:
            raise FitPruneError(f"{cell.label()} needs a reduction or a recipe")
        if cell.pruner == FITPRUNE:
            recipe = self.calibrated.recipe(facts, cell.reduction, self._frames(cell))
            return solve(cell.pruner, cell.reduction, facts.config, recipe=recipe)
        tokens = self.calibrated.typical_tokens(facts, cell.suite, self._frames(cell))
        given: dict[str, Any] = {"visual_tokens": tokens, "seed": self.settings.seed}
        if cell.needs_fit:
            recipe = self.calibrated.recipe_among(facts, cell.pruner, cell.reduction, given, self._frames(cell))
            given["options"] = {FITPRUNE: {"recipe": recipe}}
        return solve(cell.pruner, cell.reduction, facts.config, **given)

    def _frames(self, cell: Cell) -> int:
        return frames_shown(cell.suite, self.settings.frames)
