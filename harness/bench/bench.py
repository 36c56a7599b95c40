"""Running cells. Work that several cells need is done once, whichever process comes first: once and for all, with what
came of it in the results folder, the dense answers of a model on a suite and a model's recipes for all budgets; once per
run a pruner's latency.
"""

import contextlib
import dataclasses
import functools
import gc
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.registry import get_pruner_class
from fitprune import BudgetError, Calibration, FitPrune, FitPruneError, Pruner, Recipe
from fitprune.engine.image_cache import Kept, remembering_images
from fitprune.models.sizes import visual_tokens
from harness import provider
from harness.answering.evaluate import Answer, Answers, conditions, evaluate_cell, sample_inputs
from harness.answering.input_cache import InputCache
from harness.bench.stretches import image_drops, joined, stretches
from harness.cells import DENSE, Cell, CellSettings
from harness.cost.tally import Tally
from harness.latency import measure
from harness.models.facts import ModelFacts, model_facts
from harness.models.loading import LoadedModel, load_model
from harness.results import store
from harness.results.journal import Journal
from harness.results.key import code_digest, content_key, digest_of
from harness.results.once import RunFolder
from harness.results.strict_json import strict
from harness.statistics import is_mean, no_drop, paired_drop, score_interval
from harness.statistics.betting import BettingBound
from harness.tasks.build import build_task
from harness.tasks.calibration import calibration_batches, sample_file
from harness.tasks.parquet import file_digest
from harness.tasks.typical import typical_tokens

if TYPE_CHECKING:
    from harness.answering.lmms_model import Finished

LATENCY_BATCH = 4
LATENCY_REPEATS = 7
LATENCY_TOKENS = 4
REDUCTION_TOLERANCE = 0.01  # a measured reduction farther from the one asked for is noted


@dataclass
class Measured:
    """What a cell gave: its result, its answers, and the dense answers that it was compared with.

    Attributes:
        cached: whether an earlier run measured it, and its result lies in the folder.
    """

    result: store.Result
    answers: Answers
    dense: Answers
    cached: bool = False


@dataclass
class Evaluated:
    """A model's answers to a suite, dense or pruned, and what they cost: FLOPs per question, share of visual-token
    FLOPs saved, visual tokens left after each decoder layer (mean per question).
    """

    answers: Answers
    flops: float
    reduction: float
    tokens_per_layer: list[float] = dataclasses.field(default_factory=list)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Evaluated":
        """What `dataclasses.asdict` and strict JSON made of one; null scores are NaN again."""
        parts = dict(record["answers"])
        answers = [Answer(**{**answer, "score": _nan_if_none(answer["score"])}) for answer in parts.pop("answers")]
        return cls(Answers(answers=answers, **parts), record["flops"], record["reduction"], record.get("tokens_per_layer", []))


class Bench:
    """Runs cells in this process, with one model in memory at a time.

    Args:
        settings: what all cells share.
        shared: the folder through which the processes of the run share work.
        results: the results folder; None keeps nothing beyond the run.
        device: where models are loaded; None leaves it to the loader.
        processes: how many run cells at the same time, for the note beside a latency.
        rerun: measure cells anew that the results folder has.
        margin: points, per suite, of a run that stops asking as soon as a drop is known to be above or below; None
            asks all questions.
    """

    def __init__(
        self,
        settings: CellSettings,
        shared: RunFolder,
        results: store.Store | None = None,
        device: str | None = None,
        processes: int = 1,
        rerun: bool = False,
        margin: Callable[[str], float | None] | None = None,
    ) -> None:
        self.settings = settings
        self.shared = shared
        self.results = results
        self.lasting = shared if results is None else results.shared
        self.device = device
        self.processes = processes
        self.rerun = rerun
        self.margin = margin
        self._loaded: LoadedModel | None = None
        self._facts: dict[str, ModelFacts] = {}
        self._inputs = InputCache()
        self._encoded: Kept = OrderedDict()
        self._conditions: dict[str, dict[str, Any]] = {}

    @contextlib.contextmanager
    def measuring(self, cell: Cell) -> Iterator[Measured]:
        """What a cell gave: found in the results folder, or measured, from where a killed run stopped.

        Inside, no other process is at this cell; the caller writes down what was measured. Raises as `run` does.
        """
        if self.results is None:
            raise FitPruneError("cells are kept in a results folder, and this bench has none")
        pruner = self.pruner(cell)
        identity = self.identity(cell, pruner)
        key = content_key(identity)
        with self.results.lock(key):
            journal = self.results.journal(key)
            found, damage = (None, "") if self.rerun else self._find(store.result_name(cell, key))
            if found is None:
                if self.rerun:
                    journal.remove()
                found = self._measure(cell, pruner, identity, journal)
                notes = [note for note in (found.result.note, damage) if note]
                found.result = dataclasses.replace(found.result, note="; ".join(notes))
            yield found
            journal.remove()

    def _find(self, name: str) -> tuple[Measured | None, str]:
        """An earlier run's outcome; a note if it was damaged, and is put aside."""
        assert self.results is not None
        try:
            result = self.results.find(name)
        except FitPruneError as error:
            self.results.set_aside(name)
            return None, f"{error}; it was put aside and the cell measured again"
        if result is None:
            return None, ""
        return Measured(result, *_answers_of(result, self.results.read_answers(result)), cached=True), ""

    def run(self, cell: Cell) -> Measured:
        """Measure a cell. Raises BudgetError where the pruner cannot reach the budget, FitPruneError for whatever
        else a user can mend.
        """
        pruner = self.pruner(cell)
        return self._measure(cell, pruner, self.identity(cell, pruner))

    def _measure(self, cell: Cell, pruner: Pruner, identity: dict[str, Any], journal: Journal | None = None) -> Measured:
        bound, full_n = None, None
        if identity["sequential"]:
            dense, pruned, bound, full_n = self._until_decided(cell, pruner, identity["sequential"]["margin"], journal)
        elif cell.is_dense:
            dense = pruned = self.dense(cell)
        else:
            # Pruned first: if another process is still at the dense answers, this one has something to do meanwhile.
            pruned = self.evaluate(cell, pruner, journal)
            dense = self.dense(cell)
        if not cell.is_dense and pruned.reduction <= 0:
            raise FitPruneError(
                f"{cell.label()} on {cell.suite} pruned nothing that its scoring did not cost: "
                f"{pruned.reduction:.1%} of the visual tokens' FLOPs saved"
            )
        if pruned.answers.data_digest != identity["data_digest"]:
            raise FitPruneError(f"the data of {cell.suite} changed while the run was going on; run it again")
        timed = self.timed(cell, pruner)
        drop = no_drop(dense.answers) if cell.is_dense else paired_drop(dense.answers, pruned.answers)
        own = score_interval(pruned.answers)
        low, high = (drop.low, drop.high) if bound is None else (100 * end for end in bound.interval())
        result = store.Result(
            **identity,
            score=pruned.answers.score,
            dense_score=dense.answers.score,
            drop=drop.drop,
            drop_ci95=(low, high),
            full_n=full_n,
            n=drop.n,
            flops=pruned.flops,
            dense_flops=dense.flops,
            reduction=pruned.reduction,
            latency_ms=timed["latency_ms"],
            memory_mb=timed["memory_mb"],
            date=store.now(),
            reduction_asked=cell.reduction,
            reduction_end_to_end=1 - pruned.flops / dense.flops,
            recipe=cell.recipe,
            positions_asked=cell.positions,
            score_ci95=(own.low, own.high),
            clusters=drop.clusters,
            data=self.settings.data,
            tokens=pruned.answers.tokens,
            seconds=pruned.answers.seconds,
            tokens_per_layer=pruned.tokens_per_layer,
            note="; ".join(
                [*pruned.answers.notes, *pruner.notes(self.model(cell).model), *self._remarks(cell, pruned, drop.unscored)]
            ),
        )
        return Measured(result, pruned.answers, dense.answers)

    def identity(self, cell: Cell, pruner: Pruner) -> dict[str, Any]:
        """What decides a cell's outcome, known before it runs: the fields of its result that its key covers."""
        facts, settings = self.facts(cell), self.settings
        return {
            "schema": store.SCHEMA,
            "model": cell.model,
            "revision": facts.revision,
            "weights": facts.weights,
            "pruner": cell.pruner,
            "code": code_digest(type(pruner)),
            "params": strict(pruner.params()),
            "suite": cell.suite,
            **self.conditions(cell),
            "limit": settings.limit,
            "seed": settings.seed,
            "versions": store.versions(),
            "device": facts.device,
            "sequential": self._stopping(cell),
        }

    def _stopping(self, cell: Cell) -> dict[str, Any]:
        """What decides when a cell's run stops: margin and seed; empty where all questions are asked."""
        margin = None if self.margin is None or cell.is_dense else self.margin(cell.suite)
        if margin is None or not is_mean(self.conditions(cell)["metric"]):
            return {}
        return {"margin": margin, "seed": self.settings.seed}

    def _until_decided(
        self, cell: Cell, pruner: Pruner, margin: float, journal: Journal | None
    ) -> tuple[Evaluated, Evaluated, BettingBound, int]:
        """Dense and pruned answers, stretch by stretch, until a drop of `margin` points is refuted from above or below; what
        is known of the drop; and the number of questions there are.
        """
        task = self.task(cell)
        parts = stretches(task.images(), self.settings.batch_size, self.settings.seed)
        bound, tally, dense, pruned = BettingBound(), self.tally(cell), [], []
        for number, places in enumerate(parts):
            part = task.narrowed(places)
            pruned.append(self.evaluate(cell, pruner, journal and journal.part(number), part, tally))
            dense.append(self.dense(cell, part))
            bound.add(image_drops(dense[-1].answers, pruned[-1].answers))
            if bound.refutes_at_least(margin / 100) or bound.refutes_at_most(margin / 100):
                break
        after, before = joined([part.answers for part in pruned]), joined([part.answers for part in dense])
        flops = sum(part.flops * part.answers.prompts for part in dense) / before.prompts
        return (
            Evaluated(before, flops, 0.0),
            Evaluated(after, pruned[-1].flops, pruned[-1].reduction),
            bound,
            sum(map(len, parts)),
        )

    def task(self, cell: Cell) -> Any:
        """The cell's suite, with its data read."""
        return build_task(cell.suite, self.settings.data, self.settings.limit)

    def tally(self, cell: Cell) -> Tally:
        """What counts the cost of the cell's answers."""
        return Tally(self.model(cell).model.config)

    def conditions(self, cell: Cell) -> dict[str, Any]:
        """`metric`, `data_digest` and `generation` of the cell's suite."""
        settings, dtype = self.settings, self.facts(cell).dtype
        name = f"{cell.suite} {dtype}"
        if name not in self._conditions:
            self._conditions[name] = conditions(cell.suite, settings.data, settings.limit, settings.batch_size, dtype)
        return self._conditions[name]

    def facts(self, cell: Cell) -> ModelFacts:
        """What identifies the cell's model; loads nothing."""
        if cell.model not in self._facts:
            self._facts[cell.model] = model_facts(cell.model, self.device)
        return self._facts[cell.model]

    def model(self, cell: Cell) -> LoadedModel:
        """The cell's model, loaded when it is not the one in memory."""
        if self._loaded is None or self._loaded.name != cell.model:
            self._loaded, self._inputs, self._encoded = None, InputCache(), OrderedDict()  # let go of the old one first
            gc.unfreeze()
            self._loaded = load_model(cell.model, self.device)
            # Modules, tokenizer and libraries stay: a collector that walks them while lmms-eval scores takes a tenth of a cell.
            gc.collect()
            gc.freeze()
        return self._loaded

    def pruner(self, cell: Cell) -> Pruner:
        """The cell's pruner at its budget. Raises BudgetError if that is out of its reach."""
        if cell.is_dense:
            return get_pruner_class(DENSE)()
        pruner = self._solved(cell)
        return dataclasses.replace(pruner, positions=cell.positions) if cell.positions else pruner

    def _solved(self, cell: Cell) -> Pruner:
        """The method as its authors have it, at the cell's budget."""
        config = self.facts(cell).config
        if cell.recipe:
            return FitPrune(Recipe.load(cell.recipe).for_model(config))
        if cell.needs_fit:
            return FitPrune.for_reduction(config, asked(cell), recipe=self.recipe(cell))
        method = get_pruner_class(cell.pruner)
        draws = any(field.name == "seed" for field in dataclasses.fields(method))
        options = {"seed": self.settings.seed} if draws else {}
        return method.for_reduction(config, asked(cell), visual_tokens=self.typical_tokens(cell), **options)

    def typical_tokens(self, cell: Cell) -> int | None:
        """Visual tokens of a prompt, where the images decide."""
        name = self.tokens_name(cell)
        return None if name is None else self.lasting.once(name, lambda: typical_tokens(self.model(cell), self.settings.data))

    def tokens_name(self, cell: Cell) -> str | None:
        """What the model's typical number of tokens is kept as; None where the configuration fixes it."""
        if visual_tokens(self.facts(cell).config) is not None:
            return None
        return f"tokens-{_slug(cell.model)}-{self._calibration(cell)}"

    def recipe(self, cell: Cell) -> Recipe:
        """The recipe fitted for the cell's budget; all budgets of the run share one calibration."""
        fitted = self.lasting.once(self.recipes_name(cell), lambda: self._fit_all(cell))[f"{asked(cell):g}"]
        if "error" in fitted:
            raise BudgetError(fitted["error"])
        return Recipe.from_record(fitted["recipe"])

    def recipes_name(self, cell: Cell) -> str:
        """What the recipes for all budgets are kept as."""
        return f"recipes-{_slug(cell.model)}-{self._calibration(cell, reductions=self._budgets(cell))}"

    def _budgets(self, cell: Cell) -> tuple[float, ...]:
        return self.settings.reductions or (asked(cell),)

    def _calibration(self, cell: Cell, **more: Any) -> str:
        """A digest of what decides a calibration of the cell's model, and of `more`."""
        facts = self.facts(cell)
        model = [facts.revision, facts.weights, facts.dtype, facts.device]
        return digest_of([*model, self._samples, store.versions(), code_digest(FitPrune), more], 12)

    @functools.cached_property
    def _samples(self) -> str:
        return file_digest([sample_file(self.settings.data)])

    def _fit_all(self, cell: Cell) -> dict[str, dict[str, Any]]:
        loaded = self.model(cell)
        batches, origin = calibration_batches(loaded, self.settings.data), provider.origin(loaded, self.settings.data)
        calibration = Calibration(loaded.model, batches, progress=False, origin=origin)
        fitted: dict[str, dict[str, Any]] = {}
        for reduction in self._budgets(cell):
            try:
                recipe = calibration.recipe(reduction, scoring=True)
            except BudgetError as error:
                fitted[f"{reduction:g}"] = {"error": str(error)}
                continue
            fitted[f"{reduction:g}"] = {"recipe": recipe.to_record()}
            if self.results is not None:
                folder = self.results.folder / "recipes"
                folder.mkdir(parents=True, exist_ok=True)
                recipe.save(folder / f"{_slug(cell.model)}-{loaded.revision[:12]}-{reduction:g}.json")
        return fitted

    def evaluate(
        self, cell: Cell, pruner: Pruner | None, journal: Journal | None = None, task: Any = None, tally: Tally | None = None
    ) -> Evaluated:
        """Answers of the cell's model under `pruner` (None: as it is) to the cell's suite, or to the `task` that is a part of
        it, and what they cost, together with what the tally has counted before.
        """
        loaded, settings = self.model(cell), self.settings
        tally = tally or self.tally(cell)

        def count(batch: "Finished") -> None:
            if batch.cost is not None:
                tally.add(batch.cost)

        # Inputs that are kept on the CPU come back as the very same tensors, and their images need no second look.
        same = loaded.device == "cpu"
        with remembering_images(loaded.model, kept=self._encoded) if same else contextlib.nullcontext():
            answers = evaluate_cell(
                loaded,
                pruner,
                cell.suite,
                data=settings.data,
                limit=settings.limit,
                batch_size=settings.batch_size,
                seed=settings.seed,
                observer=count,
                journal=journal,
                cache=self._inputs,
                task=task,
            )
        return Evaluated(answers, tally.flops(), tally.reduction(), tally.tokens_per_layer())

    def dense(self, cell: Cell, task: Any = None) -> Evaluated:
        """The dense model's answers to the cell's suite, or to a part of it, from whichever process, of this run or another,
        came first.
        """
        dense = Cell(cell.model, DENSE, None, cell.suite)
        key = content_key(self.identity(dense, self.pruner(dense)))
        if task is not None:
            key += f"-{digest_of(list(task.rows), 8)}"
        name = f"dense-{_slug(cell.model)}-{cell.suite}-{key}"

        def compute() -> dict[str, Any]:
            journal = None if self.results is None else self.results.journal(f"dense-{key}")
            if journal is not None and self.rerun:
                journal.remove()
            return dataclasses.asdict(self.evaluate(dense, None, journal, task))

        if self.rerun:  # once in this run, and in place of what earlier runs left
            record = self.shared.once(f"again-{name}", lambda: self.lasting.once(name, compute, again=True))
        else:
            record = self.lasting.once(name, compute)
        if self.results is not None:  # also what a run left that was killed once its answers were written
            self.results.journal(f"dense-{key}").remove()
        return Evaluated.from_json(record)

    def timed(self, cell: Cell, pruner: Pruner) -> dict[str, Any]:
        """`latency_ms` and `memory_mb` of a model under a pruner; once per run, whatever the suite."""
        return self.shared.once(f"latency-{_slug(cell.label())}", lambda: self._time(cell, pruner))

    def _time(self, cell: Cell, pruner: Pruner) -> dict[str, Any]:
        loaded = self.model(cell)
        inputs = next(
            sample_inputs(loaded, cell.suite, data=self.settings.data, limit=2 * LATENCY_BATCH, batch_size=LATENCY_BATCH)
        )
        compared = measure.compare(loaded.model, inputs, pruner, new_tokens=LATENCY_TOKENS, repeats=LATENCY_REPEATS)
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
        }

    def _remarks(self, cell: Cell, pruned: Evaluated, unscored: int) -> list[str]:
        """What a reader of the result must know."""
        remarks = []
        if cell.reduction is not None and abs(pruned.reduction - cell.reduction) > REDUCTION_TOLERANCE:
            remarks.append(
                f"{cell.suite}: {cell.label()} saves {pruned.reduction:.3f} of the visual tokens' FLOPs, "
                f"not the {cell.reduction:g} asked for"
            )
        if self.margin is not None and not cell.is_dense and not is_mean(pruned.answers.metric):
            remarks.append(
                f"{cell.suite}: its metric is no mean over questions, so all were asked, and the gate is `significant`"
            )
        if unscored:
            remarks.append(f"{cell.suite}: {unscored} questions have no score and take no part in the drop")
        if cell.needs_fit and self.settings.data == "hub":
            remarks.append(
                f"{cell.model}: its recipes were fitted on the embedded calibration scenes; "
                "fit on data like yours and give --recipe"
            )
        return remarks


def asked(cell: Cell) -> float:
    """The budget that the cell's pruner is solved for."""
    if cell.reduction is None:
        raise FitPruneError(f"{cell.label()} needs a reduction or a recipe")
    return cell.reduction


def _answers_of(result: store.Result, records: list[dict[str, Any]]) -> tuple[Answers, Answers]:
    """The answers, own and dense, that a result was written with."""
    own, dense = [], []
    for record in records:
        values = dict(record)
        # A dense cell's own answers are what it is compared with.
        before = values.pop("dense_answer", values["answer"]), values.pop("dense_score", values["score"])
        own.append(Answer(**{**values, "score": _nan_if_none(values["score"])}))
        dense.append(Answer(**{**values, "answer": before[0], "score": _nan_if_none(before[1])}))

    def of(score: float, answers: list[Answer]) -> Answers:
        seconds = result.seconds or 0.0
        return Answers(
            result.suite, result.metric, score, answers, len(answers), seconds, result.data_digest, result.generation
        )

    return of(result.score, own), of(result.dense_score, dense)


def _nan_if_none(score: float | None) -> float:
    return math.nan if score is None else score


def _slug(name: str) -> str:
    """A file name for a model's name, which may be a path: readable, and unique."""
    readable = "".join(char if char.isalnum() or char in ".-" else "_" for char in Path(name).name)
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
