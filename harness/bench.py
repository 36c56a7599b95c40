"""Running cells. Work that several cells need is done once per run, whichever process comes first: the dense
answers of a model on a suite, a model's recipes for all budgets, a pruner's latency.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines.registry import get_pruner_class
from fitprune import BudgetError, Calibration, FitPrune, FitPruneError, Pruner, Recipe
from harness import latency, provider, store
from harness.calibration import calibration_batches
from harness.cells import DENSE, Cell, CellSettings
from harness.evaluate import Answer, Answers, evaluate_cell, sample_inputs
from harness.models.loading import LoadedModel, load_model
from harness.once import RunFolder
from harness.statistics import no_drop, paired_drop, score_interval
from harness.tally import Tally
from harness.typical import typical_tokens

LATENCY_BATCH = 4
LATENCY_REPEATS = 7
LATENCY_TOKENS = 4
REDUCTION_TOLERANCE = 0.01  # a measured reduction farther from the one asked for is noted


@dataclass
class Measured:
    """What a cell gave: its result, its answers, and the dense answers that it was compared with."""

    result: store.Result
    answers: Answers
    dense: Answers


@dataclass
class Evaluated:
    """A model's answers to a suite, dense or pruned, and what they cost: FLOPs per question, share of visual-token
    FLOPs saved.
    """

    answers: Answers
    flops: float
    reduction: float

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Evaluated":
        """What `dataclasses.asdict` and strict JSON made of one; null scores are NaN again."""
        parts = dict(record["answers"])
        answers = [Answer(**{**answer, "score": _nan_if_none(answer["score"])}) for answer in parts.pop("answers")]
        return cls(Answers(answers=answers, **parts), record["flops"], record["reduction"])


class Bench:
    """Runs cells in this process, with one model in memory at a time.

    Args:
        settings: what all cells share.
        shared: the folder through which the processes of the run share work.
        recipes: folder where fitted recipes are kept; None keeps them for the run only.
        device: where models are loaded; None leaves it to the loader.
        processes: how many run cells at the same time, for the note beside a latency.
    """

    def __init__(
        self,
        settings: CellSettings,
        shared: RunFolder,
        recipes: Path | None = None,
        device: str | None = None,
        processes: int = 1,
    ) -> None:
        self.settings = settings
        self.shared = shared
        self.recipes = recipes
        self.device = device
        self.processes = processes
        self._loaded: LoadedModel | None = None

    def run(self, cell: Cell) -> Measured:
        """Evaluate a cell. Raises BudgetError where the pruner cannot reach the budget, FitPruneError for whatever
        else a user can mend.
        """
        pruner = self.pruner(cell)
        # Pruned first: if another process is still at the dense answers, this one has something to do meanwhile.
        pruned = None if cell.is_dense else self.evaluate(cell, pruner)
        dense = self.dense(cell)
        pruned = dense if pruned is None else pruned
        if not cell.is_dense and pruned.reduction <= 0:
            raise FitPruneError(
                f"{cell.label()} on {cell.suite} pruned nothing that its scoring did not cost: "
                f"{pruned.reduction:.1%} of the visual tokens' FLOPs saved"
            )
        timed = self.timed(cell, pruner)
        drop = no_drop(dense.answers) if cell.is_dense else paired_drop(dense.answers, pruned.answers)
        own = score_interval(pruned.answers)
        result = store.Result(
            model=cell.model,
            revision=self.model(cell).revision,
            pruner=cell.pruner,
            params=pruner.params(),
            suite=cell.suite,
            metric=pruned.answers.metric,
            score=pruned.answers.score,
            dense_score=dense.answers.score,
            drop=drop.drop,
            drop_ci95=(drop.low, drop.high),
            n=drop.n,
            flops=pruned.flops,
            dense_flops=dense.flops,
            reduction=pruned.reduction,
            latency_ms=timed["latency_ms"],
            memory_mb=timed["memory_mb"],
            versions=store.versions(),
            device=timed["device"],
            seed=self.settings.seed,
            date=store.now(),
            reduction_asked=cell.reduction,
            reduction_end_to_end=1 - pruned.flops / dense.flops,
            recipe=cell.recipe,
            score_ci95=(own.low, own.high),
            clusters=drop.clusters,
            data=self.settings.data,
            data_digest=pruned.answers.data_digest,
            limit=self.settings.limit,
            generation=pruned.answers.generation,
            seconds=pruned.answers.seconds,
            note="; ".join([*pruned.answers.notes, *self._remarks(cell, pruned, drop.unscored)]),
        )
        return Measured(result, pruned.answers, dense.answers)

    def model(self, cell: Cell) -> LoadedModel:
        """The cell's model, loaded when it is not the one in memory."""
        if self._loaded is None or self._loaded.name != cell.model:
            self._loaded = None  # let go of the old one first
            self._loaded = load_model(cell.model, self.device)
        return self._loaded

    def pruner(self, cell: Cell) -> Pruner:
        """The cell's pruner at its budget. Raises BudgetError if that is out of its reach."""
        loaded = self.model(cell)
        if cell.is_dense:
            return get_pruner_class(DENSE)()
        if cell.recipe:
            return FitPrune(Recipe.load(cell.recipe).for_model(loaded.model.config))
        if cell.needs_fit:
            return FitPrune.for_reduction(loaded.model.config, _asked(cell), recipe=self.recipe(cell))
        method = get_pruner_class(cell.pruner)
        draws = any(field.name == "seed" for field in dataclasses.fields(method))
        options = {"seed": self.settings.seed} if draws else {}
        tokens = self.shared.once(f"tokens-{_slug(cell.model)}", lambda: typical_tokens(loaded, self.settings.data))
        return method.for_reduction(loaded.model.config, _asked(cell), visual_tokens=tokens, **options)

    def recipe(self, cell: Cell) -> Recipe:
        """The recipe fitted for the cell's budget; all budgets of the run share one calibration."""
        fitted = self.shared.once(f"recipes-{_slug(cell.model)}", lambda: self._fit_all(cell))[f"{_asked(cell):g}"]
        if "error" in fitted:
            raise BudgetError(fitted["error"])
        return Recipe.load(fitted["file"])

    def _fit_all(self, cell: Cell) -> dict[str, dict[str, str]]:
        loaded = self.model(cell)
        batches, origin = calibration_batches(loaded, self.settings.data), provider.origin(loaded, self.settings.data)
        calibration = Calibration(loaded.model, batches, progress=False, origin=origin)
        fitted = {}
        for reduction in self.settings.reductions or (_asked(cell),):
            name = f"{_slug(cell.model)}-{loaded.revision[:12]}-{reduction:g}.json"
            try:
                recipe = calibration.recipe(reduction, scoring=True)
            except BudgetError as error:
                fitted[f"{reduction:g}"] = {"error": str(error)}
                continue
            recipe.save(self.shared.folder / name)
            if self.recipes is not None:
                self.recipes.mkdir(parents=True, exist_ok=True)
                recipe.save(self.recipes / name)
            fitted[f"{reduction:g}"] = {"file": str(self.shared.folder / name)}
        return fitted

    def evaluate(self, cell: Cell, pruner: Pruner | None) -> Evaluated:
        """Answers of the cell's model under `pruner` (None: as it is) to the cell's suite, and what they cost."""
        loaded, settings = self.model(cell), self.settings
        tally = Tally(loaded.model.config)
        answers = evaluate_cell(
            loaded,
            pruner,
            cell.suite,
            data=settings.data,
            limit=settings.limit,
            batch_size=settings.batch_size,
            seed=settings.seed,
            observer=tally,
        )
        return Evaluated(answers, tally.flops(), tally.reduction())

    def dense(self, cell: Cell) -> Evaluated:
        """The dense model's answers to the cell's suite, from whichever process of the run came first."""
        record = self.shared.once(
            f"dense-{_slug(cell.model)}-{cell.suite}", lambda: dataclasses.asdict(self.evaluate(cell, None))
        )
        return Evaluated.from_json(record)

    def timed(self, cell: Cell, pruner: Pruner) -> dict[str, Any]:
        """`latency_ms`, `memory_mb` and `device` of a model under a pruner; once per run, whatever the suite."""
        return self.shared.once(f"latency-{_slug(cell.label())}", lambda: self._time(cell, pruner))

    def _time(self, cell: Cell, pruner: Pruner) -> dict[str, Any]:
        loaded = self.model(cell)
        inputs = next(
            sample_inputs(loaded, cell.suite, data=self.settings.data, limit=2 * LATENCY_BATCH, batch_size=LATENCY_BATCH)
        )
        compared = latency.compare(loaded.model, inputs, pruner, new_tokens=LATENCY_TOKENS, repeats=LATENCY_REPEATS)
        taken = {
            "batch": compared.pruned.batch,
            "repeats": compared.pruned.repeats,
            "threads": compared.pruned.threads,
            "processes": self.processes,
            "suite": cell.suite,
        }
        return {
            "latency_ms": compared.latency_ms() | taken,
            "memory_mb": compared.pruned.memory_mb,
            "device": compared.pruned.device,
        }

    def _remarks(self, cell: Cell, pruned: Evaluated, unscored: int) -> list[str]:
        """What a reader of the result must know."""
        remarks = []
        if cell.reduction is not None and abs(pruned.reduction - cell.reduction) > REDUCTION_TOLERANCE:
            remarks.append(
                f"{cell.suite}: {cell.label()} saves {pruned.reduction:.3f} of the visual tokens' FLOPs, "
                f"not the {cell.reduction:g} asked for"
            )
        if unscored:
            remarks.append(f"{cell.suite}: {unscored} questions have no score and take no part in the drop")
        if cell.needs_fit and self.settings.data == "hub":
            remarks.append(
                f"{cell.model}: its recipes were fitted on the embedded calibration scenes; "
                "fit on data like yours and give --recipe"
            )
        return remarks


def _asked(cell: Cell) -> float:
    if cell.reduction is None:
        raise FitPruneError(f"{cell.label()} needs a reduction or a recipe")
    return cell.reduction


def _nan_if_none(score: float | None) -> float:
    return math.nan if score is None else score


def _slug(name: str) -> str:
    """A file name for a model's name, which may be a path: readable, and unique."""
    readable = "".join(char if char.isalnum() or char in ".-" else "_" for char in Path(name).name)
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
