"""`Planner`: what a run would do, without doing it: which cells lie in the results folder, and what the others will cost.

Loads no weights, generates nothing, fits nothing and writes nothing. What cannot be said without that is None.
"""

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from baselines.shared.dry_run import Plans
from fitprune import BudgetError, FitPruneError, UnsupportedModel
from harness.answering.evaluate import sample_inputs
from harness.bench.identity import Margin, conditions_of
from harness.bench.resolved import Resolved, Resolver
from harness.bench.shelf import NeedsWeights, OutlineShelf
from harness.cells import Cell, CellSettings
from harness.cost.flops import count_from_tokens, count_prompts, prompt_tokens
from harness.cost.vision import VisionCost, vision_cost
from harness.models.facts import ModelFacts
from harness.pruners.calibrated import Calibrated
from harness.pruners.of_cells import CellPruners, alike
from harness.results.once import ReadOnlyFolder
from harness.results.result import Result
from harness.results.store import Store
from harness.tasks.build import build_task
from harness.words import duration

SAMPLE = 16  # questions whose prompts are looked at
_Flops = Mapping[tuple[Cell, int | None], float]
"""Of a question, as earlier results have it, by cell and frames of a video."""


@dataclass(frozen=True)
class Planned:
    """A cell as a run would find it.

    Attributes:
        state: "cached", "begun" (a killed run's journal is there), "to run", or "cannot" with the reason.
        questions: how many it asks.
        flops, seconds: of what is still to do; None where nothing is known of it.
        prefill_only: whether the FLOPs are those of prompts alone, since nobody knows yet how long the answers are.
    """

    cell: Cell
    state: str
    questions: int = 0
    flops: float | None = 0.0
    seconds: float | None = 0.0
    prefill_only: bool = False
    reason: str = ""


class Expected:
    """What earlier results make one expect of a cell's time: those of the same model, best of the same method and suite."""

    def __init__(self, earlier: Iterable[Result]) -> None:
        taken: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for result in earlier:
            if result.seconds and result.n:
                for place in _places(result.cell):
                    taken[place].append(result.seconds / result.n)
        self._mean = {place: fmean(seconds) for place, seconds in taken.items()}

    def seconds(self, cell: Cell, questions: int) -> float | None:
        """Of a cell of so many questions; None where nothing is known of its model."""
        known = next((self._mean[place] for place in _places(cell) if place in self._mean), None)
        return None if known is None else known * questions


def _places(cell: Cell) -> list[tuple[str, ...]]:
    return [(cell.model, cell.pruner, cell.suite), (cell.model, cell.pruner), (cell.model,)]


class Planner:
    """Looks ahead, with models of which only processor and configuration are loaded.

    Args:
        settings: what all cells share.
        results: the results folder; nothing is written to it.
        device, rerun, margin: as a `Bench` takes them.
        facts: of the models, where they will run elsewhere.
    """

    def __init__(
        self,
        settings: CellSettings,
        results: Store,
        device: str | None = None,
        rerun: bool = False,
        margin: Margin | None = None,
        facts: Mapping[str, ModelFacts] | None = None,
    ) -> None:
        self.settings = settings
        self.results = results
        self.rerun = rerun
        self._questions: dict[str, int] = {}
        self._asked: tuple[tuple[str, str], Any] = ("", ""), None
        self._plans: tuple[str, dict[Cell, Plans]] = "", {}
        self.shelf = OutlineShelf(device, facts)
        calibrated = Calibrated(settings, ReadOnlyFolder(results.shared.files), self.shelf)
        self.resolver = Resolver(settings, self.shelf, CellPruners(settings, calibrated), conditions_of(settings), margin)

    def plan(self, cells: Iterable[Cell]) -> list[Planned]:
        """What a run would do with each cell. Raises FitPruneError as the run would, but for budgets out of reach."""
        cells = list(cells)
        found, begun = self.results.read_all().results, self.results.begun()
        flops = {(result.cell, result.generation.get("frames")): result.flops for result in found if result.flops is not None}
        expected = Expected(found)
        # One model after another, and of each one suite after another: an outline and a suite's prompts are made once.
        places: dict[tuple[str, ...], int] = {}
        for cell in cells:
            places.setdefault((cell.model,), len(places))
            places.setdefault((cell.model, cell.suite), len(places))
        grouped = sorted(dict.fromkeys(cells), key=lambda cell: (places[cell.model,], places[cell.model, cell.suite]))
        planned = {cell: self._planned(cell, expected, begun, flops) for cell in grouped}
        return [planned[cell] for cell in cells]

    def _planned(self, cell: Cell, expected: Expected, begun: set[str], known: _Flops) -> Planned:
        if cell.suite not in self._questions:
            self._questions[cell.suite] = len(build_task(cell.suite, self.settings.data, self.settings.limit).rows)
        questions = self._questions[cell.suite]
        seconds = expected.seconds(cell, questions)
        try:
            resolved = self.resolver.resolve(cell)
        except (BudgetError, UnsupportedModel) as error:
            return Planned(cell, "cannot", reason=str(error))
        except NeedsWeights:  # the recipe does not exist yet, so neither its key nor its FLOPs do
            return Planned(cell, "to run", questions, None, seconds, reason="a recipe is fitted first")
        if not self.rerun and self._is_there(resolved.key):
            return Planned(cell, "cached", questions)
        flops, prefill_only = self._flops(resolved, known)
        return Planned(
            cell,
            "begun" if resolved.key in begun and not self.rerun else "to run",
            questions,
            None if flops is None else flops * questions,
            seconds,
            prefill_only,
            "at most: it stops when it is decided" if resolved.identity["sequential"] else "",
        )

    def _is_there(self, key: str) -> bool:
        for name in self.results.names(key):
            with contextlib.suppress(FitPruneError):  # damaged: the run would measure it again
                self.results.read_answers(self.results.find(name))
                return True
        return False

    def _flops(self, resolved: Resolved, known: _Flops) -> tuple[float | None, bool]:
        """FLOPs per question: as an earlier result measured them, else of the prompts of the first questions."""
        place = resolved.cell, resolved.identity["generation"].get("frames")
        if place in known:
            return known[place], False
        try:
            return self._prefill_flops(resolved), True
        except FitPruneError:  # a method or a model whose counts need more than shapes
            return None, False

    def _prefill_flops(self, resolved: Resolved) -> float:
        cell, config = resolved.cell, resolved.facts.config
        asked = self._prompts_of(cell, config)
        if cell.is_dense:
            counted = count_prompts(config, asked.inputs)
            return counted.total / counted.samples
        if self._plans[0] != cell.model:
            self._plans = cell.model, {}
        plans = self._plans[1].setdefault(alike(cell), Plans(resolved.pruner, config))
        typical = plans.of(asked.text, asked.visual)
        vision = asked.vision if typical.tower is None else vision_cost(config, asked.one, typical.tower)
        sides = typical.visual_in, typical.visual_out
        return count_from_tokens(config, asked.text, *sides, vision=vision, scoring_macs=typical.scoring_macs).total

    def _prompts_of(self, cell: Cell, config: Any) -> "_Prompts":
        """Of the suite at hand: cells of a model on a suite are planned one after another."""
        if self._asked[0] != (cell.model, cell.suite):
            outline = self.shelf.outline(cell.model)
            data, frames = self.settings.data, self.settings.frames
            prompts = next(sample_inputs(outline, cell.suite, data=data, limit=SAMPLE, batch_size=SAMPLE, frames=frames))
            self._asked = (cell.model, cell.suite), _Prompts(config, prompts)
        return self._asked[1]


class _Prompts:
    """The first prompts of a suite, and a typical one.

    Attributes:
        inputs: the batch of them; `one` is the first alone.
        text, visual: tokens of their mean length.
    """

    def __init__(self, config: Any, inputs: dict[str, Any]) -> None:
        self.config, self.inputs = config, inputs
        self.one = {name: value[:1] for name, value in inputs.items()}
        self.text, self.visual = (round(float(tokens.float().mean())) for tokens in prompt_tokens(config, inputs))

    @functools.cached_property
    def vision(self) -> VisionCost:
        """What the first one's image costs."""
        return vision_cost(self.config, self.one)


def lines_of(planned: list[Planned]) -> list[str]:
    """The plan as an aligned table, and its sums."""
    from tabulate import tabulate

    rows = [
        [
            plan.cell.label(),
            plan.cell.suite,
            plan.state,
            plan.questions or "",
            "" if plan.state in ("cached", "cannot") else _flops(plan),
            "" if plan.state in ("cached", "cannot") else "unknown" if plan.seconds is None else duration(plan.seconds),
            plan.reason,
        ]
        for plan in planned
    ]
    table = tabulate(
        rows, ["cell", "suite", "state", "questions", "FLOPs", "time", ""], tablefmt="plain", disable_numparse=True
    )
    left = [plan for plan in planned if plan.state in ("begun", "to run")]
    states = ", ".join(
        f"{count} {state}"
        for state in ("cached", "begun", "to run", "cannot")
        if (count := sum(plan.state == state for plan in planned))
    )
    sums = [
        f"{len(planned)} cells: {states}",
        f"FLOPs: {_total([plan.flops for plan in left], '{:.3g}'.format)}",
        f"time in one process: {_total([plan.seconds for plan in left], duration)}",
    ]
    if any(plan.prefill_only for plan in left):
        sums.append(f"≥: the prompts alone, by the first {SAMPLE} questions; how long answers are is not known yet")
    return [*table.splitlines(), "", *sums]


def _flops(planned: Planned) -> str:
    if planned.flops is None:
        return "unknown"
    return f"{'≥ ' if planned.prefill_only else ''}{planned.flops:.3g}"


def _total(figures: Sequence[float | None], words: Callable[[float], str]) -> str:
    """The sum of what is known, and for how many cells nothing is."""
    known = [figure for figure in figures if figure is not None]
    unknown = len(figures) - len(known)
    if unknown and not known:
        return "unknown"
    return words(sum(known)) + (f", and unknown for {unknown} cell{'s' * (unknown != 1)}" if unknown else "")
