"""`Resolved`: a cell whose names have become things: its model's facts, its pruner, its identity and its key.

A cell is resolved once, by `Resolver`; what follows is handed the record and asks for nothing of it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from baselines.registry import get_pruner_class
from fitprune import BudgetError, Pruner, UnsupportedModel
from harness.bench.identity import Conditions, Margin, identity
from harness.cells import DENSE, Cell, CellSettings
from harness.models.facts import ModelFacts
from harness.models.videos.reading import require_videos
from harness.pruners.of_cells import CellPruners, alike
from harness.results.key import content_key
from harness.results.result import result_name
from harness.results.sources import is_ours
from harness.tasks.specs import shows_videos


@dataclass(frozen=True)
class Resolved:
    """A cell, resolved.

    Attributes:
        facts: of its model.
        pruner: at its budget; for a dense cell the one that prunes nothing.
        identity: what decides its outcome.
        key: the identity's digest.
        compared_with: the dense cell of the same model and suite; None for that one itself.
    """

    cell: Cell
    facts: ModelFacts
    pruner: Pruner
    identity: Mapping[str, Any]
    key: str
    compared_with: "Resolved | None" = None

    @property
    def name(self) -> str:
        """The stem of its result's files."""
        return result_name(self.cell, self.key)

    @property
    def dense(self) -> "Resolved":
        """The dense cell that its answers are compared with, or itself."""
        return self.compared_with or self


class Facts(Protocol):
    """Who knows models."""

    def facts(self, name: str) -> ModelFacts: ...


class Resolver:
    """Resolves the cells of a run.

    Args:
        margin: of a run that may stop early; None where all questions are asked.
    """

    def __init__(
        self, settings: CellSettings, models: Facts, pruners: CellPruners, conditions: Conditions, margin: Margin | None = None
    ) -> None:
        self.settings = settings
        self.models = models
        self.pruners = pruners
        self.conditions = conditions
        self.margin = margin
        self._dense: dict[tuple[str, str], Resolved] = {}
        self._solved: dict[Cell, Pruner | BudgetError | UnsupportedModel] = {}

    def resolve(self, cell: Cell) -> Resolved:
        """A cell, resolved. Raises BudgetError if its budget is out of the pruner's reach, UnsupportedModel if the model or the
        pruner is none for what the suite shows.
        """
        facts = self.models.facts(cell.model)
        videos = shows_videos(cell.suite)
        if videos:
            require_videos(cell.model, facts.config, f"suite '{cell.suite}'")
        if cell.is_dense:
            return self._dense_of(cell, facts)
        for name in cell.pruner.split("+"):  # before anything is solved or fitted for them
            _require_kind(get_pruner_class(name), cell.suite, videos)
        pruner = self._solved_for(cell, facts)
        return self._record(cell, facts, pruner, self._dense_of(cell, facts))

    def _solved_for(self, cell: Cell, facts: ModelFacts) -> Pruner:
        """A cell's pruner, which is the same on all suites about pictures. What is out of reach is so for good, too."""
        if (place := alike(cell)) not in self._solved:
            try:
                self._solved[place] = self.pruners.of(cell, facts)
            except (BudgetError, UnsupportedModel) as error:
                self._solved[place] = error
        found = self._solved[place]
        if isinstance(found, Exception):
            raise found.with_traceback(None)
        return found

    def _dense_of(self, cell: Cell, facts: ModelFacts) -> Resolved:
        place = cell.model, cell.suite
        if place not in self._dense:
            dense = Cell(cell.model, DENSE, None, cell.suite)
            self._dense[place] = self._record(dense, facts, self.pruners.of(dense, facts))
        return self._dense[place]

    def _record(self, cell: Cell, facts: ModelFacts, pruner: Pruner, dense: Resolved | None = None) -> Resolved:
        known = self.conditions(cell.suite, facts.dtype)
        decides = identity(cell, facts, pruner, known, self.settings, self.margin)
        # This package's methods draw with a parameter of their own, or not at all.
        seed = None if all(is_ours(type(member)) for member in pruner.members) else self.settings.seed
        return Resolved(cell, facts, pruner, decides, content_key(decides, seed), dense)


def _require_kind(method: type[Pruner], suite: str, videos: bool) -> None:
    """Raise UnsupportedModel where a method prunes other things than the suite shows."""
    if method.videos and not videos:
        raise UnsupportedModel(
            f"{method.name} prunes videos, by what changes from frame to frame; suite '{suite}' shows pictures"
        )
    if videos and (method.vision or method.merges_in_tower or method.resizes_pictures):
        raise UnsupportedModel(
            f"{method.name} works in the vision tower, where the frames of a video are not what the decoder is given; "
            f"suite '{suite}' shows videos"
        )
