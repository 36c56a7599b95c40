"""The command line of `pytest suites/`: what can be asked for, and what is wrong with it, before any work starts."""

import argparse
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pytest

from fitprune.errors import FitPruneError, unknown_name
from harness.bench.command import BATCH_SIZE, suites_command
from harness.cells import AUTHORS, DENSE, FITPRUNE, Cell, CellSettings
from harness.gate.saved import SavedRun, check_name
from harness.gate.thresholds import Thresholds
from harness.models.devices import DEVICE_NAMES, check_device
from harness.models.family_names import ChosenModel, choose_model
from harness.plugin.selection import DEST
from harness.results.store import Store
from harness.statistics import GATES

POSITIONS = ("kept", "repacked")
DEFAULT_MODELS = ("llava-tiny",)
DEFAULT_PRUNERS = (DENSE, FITPRUNE, "fastv", "random")
DEFAULT_REDUCTIONS = ("0.3", "0.5", "0.7")
MAX_DROP = {"mini": 5.0}  # points; the mini suites are small, and the model that ships with the package suffers from pruning
MAX_DROP_ELSEWHERE = 1.0


def add_options(parser: pytest.Parser) -> None:
    """Register the options. Values stay texts here: `RunOptions.parse` says in one line what is wrong with one.

    Raises pytest.UsageError where another plugin has taken a name.
    """
    group = parser.getgroup("fitprune", "accuracy and cost of visual token pruning")

    def add(name: str, metavar: str, text: str, action: str = "store") -> None:
        group.addoption(
            f"--{name}", dest=DEST + name.replace("-", "_"), metavar=metavar, default=None, action=action, help=text
        )  # type: ignore[arg-type]

    try:
        add(
            "model",
            "NAME",
            "registry name, family's name, hub id or local folder; repeatable, comma lists (default: llava-tiny)",
            "append",
        )
        add("pruner", "NAME", "method names, dense, or all; comma lists (default: dense,fitprune,fastv,random)", "append")
        add("reduction", "R", "shares of the visual tokens' FLOPs to save, between 0 and 1 (default: 0.3,0.5,0.7)", "append")
        add(
            "max-drop",
            "POINTS|SUITE:POINTS,…",
            "the gate: what a cell may lose, on all suites or on one (default: no gate; with --gate 5 on mini data, else 1)",
        )
        add(
            "gate",
            "GATE",
            "significant: a cell fails when its drop is above --max-drop with 95 %% confidence (default); "
            "certified: it passes only when its drop is below with 95 %% confidence; "
            "sequential: so too, but questions are asked in random order, only until that is decided",
        )
        add(
            "positions",
            "authors|kept|repacked",
            "position ids of what stays: as a method's authors have them (default), kept, or numbered anew; a row for each",
            "append",
        )
        add("save", "NAME", "keep this run's cells under a name, in the results folder's saved/NAME")
        add("compare", "NAME", "compare each cell with the saved run's, on the same questions")
        add(
            "compare-fail",
            "POINTS|SUITE:POINTS|latency:P%%,…",
            "what a cell may lose against the saved run, in points, and in prefill time relative to dense",
        )
        add("limit", "N", "questions per suite (default: all)")
        add(
            "data",
            "mini|hub|DIR",
            "embedded data (default), the public data sets, or a folder of parquet files in their columns",
        )
        add("results", "DIR", "where each cell leaves its result (default: results)")
        add(
            "device",
            "DEVICE",
            "cpu, cuda, cuda:N or auto, which spreads a model over all GPUs "
            "(default: the CUDA devices, dealt out to the workers by turn, else the CPU)",
        )
        add("batch-size", "N", "questions per batch; changes no answer (default: 16)")
        add(
            "recipe",
            "FILE|published:NAME@P",
            "a FitPrune recipe, or one that its authors published, instead of fitting one for each --reduction",
        )
        group.addoption(
            "--plan",
            dest=DEST + "plan",
            action="store_true",
            default=False,
            help="print the cells, which of them the results have, and what the others will cost; run nothing",
        )
        group.addoption(
            "--rerun", dest=DEST + "rerun", action="store_true", default=False, help="measure cells again that the results have"
        )
        group.addoption(
            "--allow-broken-images",
            dest=DEST + "allow_broken_images",
            action="store_true",
            default=False,
            help="count a question whose picture cannot be decoded as wrong, with a note, instead of ending its cell",
        )
        add("seed", "N", "seed of the pruners that draw (default: 0)")
    except ValueError as error:
        raise pytest.UsageError(
            f"another plugin has taken an option of the suites ({error}); switch it off with -p no:NAME"
        ) from None


@dataclass(frozen=True)
class RunOptions:
    """A command line, parsed: which cells, how, and what fails one.

    Attributes:
        max_drop: what a cell may lose; None where no gate was asked for, neither by --max-drop nor by --gate.
        every: whether all pruners were asked for, not these by name.
        chosen: what was taken for each model that was asked for; `models` are their names, each once.
    """

    models: tuple[str, ...]
    pruners: tuple[str, ...]
    reductions: tuple[float, ...]
    max_drop: Thresholds | None
    results: str
    device: str | None
    recipe: str
    settings: CellSettings
    rerun: bool = False
    gate: str = "significant"
    save: str = ""
    compare: str = ""
    compare_fail: Thresholds | None = None
    positions: tuple[str, ...] = (AUTHORS,)
    every: bool = False
    plan: bool = False
    chosen: tuple[ChosenModel, ...] = ()

    @classmethod
    def parse(cls, namespace: argparse.Namespace) -> "RunOptions":
        """Read pytest's namespace. Raises FitPruneError, in one line, for a value that cannot be meant."""

        def given(name: str) -> str | None:
            return getattr(namespace, DEST + name)

        def listed(name: str, default: Sequence[str]) -> tuple[str, ...]:
            values = getattr(namespace, DEST + name)
            split = default if values is None else [part.strip() for value in values for part in value.split(",")]
            if not all(split):
                raise FitPruneError(f"--{name} {','.join(values)} has an empty entry")
            return tuple(dict.fromkeys(split))

        recipe = given("recipe") or ""
        if recipe and given("reduction"):
            raise FitPruneError("--recipe and --reduction exclude each other: the recipe says how much is saved")
        data = given("data") or "mini"
        device = given("device")
        if device is not None and not DEVICE_NAMES.fullmatch(device):
            raise FitPruneError(f"--device {device} is not cpu, cuda, cuda:N or auto")
        gate = given("gate") or "significant"
        if gate not in GATES:
            raise unknown_name("gate", gate, GATES)
        save, compare, compare_fail = given("save"), given("compare"), given("compare_fail")
        if compare_fail is not None and compare is None:
            raise FitPruneError("--compare-fail says what may be lost against a saved run; name it with --compare NAME")
        if save is not None and save == compare:
            raise FitPruneError(f"--save {save} and --compare {save} name one run: it would replace what it is compared with")
        if gate == "sequential" and (save or compare):
            raise FitPruneError("--gate sequential stops where it is decided; --save and --compare need all answers of a run")
        positions = listed("positions", (AUTHORS,))
        for choice in positions:
            if choice not in (AUTHORS, *POSITIONS):
                raise FitPruneError(f"--positions {choice} is not {AUTHORS}, {' or '.join(POSITIONS)}")
        reductions = tuple(dict.fromkeys(_share(part) for part in listed("reduction", DEFAULT_REDUCTIONS)))
        return cls(
            models=listed("model", DEFAULT_MODELS),
            pruners=listed("pruner", _default_pruners(recipe, gate)),
            reductions=reductions,
            max_drop=_allowed(given("max_drop"), given("gate"), data),
            results=given("results") or "results",
            device=device,
            recipe=recipe,
            settings=CellSettings(
                data=data,
                limit=_whole("limit", given("limit"), None, 1),
                batch_size=_whole("batch-size", given("batch_size"), BATCH_SIZE, 1) or BATCH_SIZE,
                seed=_whole("seed", given("seed"), 0, 0) or 0,
                reductions=reductions,
                allow_broken_images=getattr(namespace, DEST + "allow_broken_images", False),
            ),
            rerun=getattr(namespace, DEST + "rerun", False),
            gate=gate,
            positions=positions,
            save="" if save is None else check_name("save", save),
            compare="" if compare is None else check_name("compare", compare),
            compare_fail=None if compare_fail is None else Thresholds.parse("compare-fail", compare_fail, latency=True),
            plan=getattr(namespace, DEST + "plan", False),
        )

    def expanded(self) -> "RunOptions":
        """The same with `all` spelled out. Raises FitPruneError, with the nearest names, for an unknown pruner."""
        from baselines.registry import PRUNERS, get_pruner_class

        names: list[str] = []
        for name in self.pruners:
            if "+" in name:
                get_pruner_class(name)
            elif name != "all" and name not in PRUNERS:
                raise unknown_name("pruner", name, [*PRUNERS, "all"])
            names += PRUNERS if name == "all" else [name]
        if self.recipe and set(names) - {DENSE, FITPRUNE}:
            raise FitPruneError(f"--recipe is for --pruner {FITPRUNE}; run the other pruners by themselves, with --reduction")
        return replace(self, pruners=tuple(dict.fromkeys(names)), every="all" in self.pruners)

    def choosing(self, chosen: Iterable[ChosenModel] | None = None) -> "RunOptions":
        """The same with each model that a family's name stands for, decided here or, in a worker, where the run was started.

        Raises FitPruneError for a family of which nothing is here.
        """
        chosen = tuple(map(choose_model, self.models) if chosen is None else chosen)
        return replace(self, models=tuple(dict.fromkeys(model.name for model in chosen)), chosen=chosen)

    def chosen_as(self, name: str) -> ChosenModel:
        """How a model of `models` was asked for; by a family's name if that was among the ways."""
        ways = [model for model in self.chosen if model.name == name]
        return next((model for model in ways if model.note), ChosenModel(name, name))

    def model_notes(self) -> list[str]:
        """Which models were taken for families' names, and which of those that were asked for are one, a line each."""
        notes = [model.note for model in self.chosen if model.note]
        for name in self.models:
            ways = [f"--model {model.asked}" for model in self.chosen if model.name == name]
            if len(ways) > 1:
                notes.append(f"{' and '.join(ways)} are one model here, {name}: its cells run once")
        return notes

    def allowed(self, suite: str) -> float | None:
        """Points that a cell on this suite may lose; None where no gate was asked for."""
        return None if self.max_drop is None else self.max_drop.points(suite)

    def check(self, suites: Sequence[str]) -> None:
        """Every check that needs no model in memory. Raises FitPruneError, in one line; leaves nothing behind."""
        from harness.models.loading import require_model
        from harness.tasks.calibration import check_samples
        from harness.tasks.preflight import check_data
        from harness.tasks.specs import SUITES

        for suite in suites:
            if suite not in SUITES:
                raise unknown_name("suite", suite, SUITES)
        for thresholds in (self.max_drop, self.compare_fail):
            if thresholds is not None:
                thresholds.check(SUITES)
        check_device(self.device)
        for model in self.models:
            require_model(model)
        for suite in suites:
            check_data(suite, self.settings.data)
        if self.recipe:
            check_recipe(self.recipe, self.models)
        elif any(FITPRUNE in name.split("+") for name in self.pruners):
            check_samples(self.settings.data)
        store = Store(self.results)
        if self.compare:
            SavedRun(store, self.compare).check(self.models, self.settings.data, self.settings.limit)
        store.check_writable()

    def command(self, cell: Cell) -> str:
        """The command that runs one cell again."""
        settings = replace(self.settings, reductions=() if cell.reduction is None else (cell.reduction,))
        return suites_command(
            [f"suites/test_{cell.suite}.py"],
            cell.model,
            [cell.pruner],
            settings,
            recipe=cell.recipe,
            max_drop=self.allowed(cell.suite),
            gate="" if self.gate == "significant" else self.gate,
            positions=[cell.positions] if cell.positions else (),
            device=self.device,
        )


def _default_pruners(recipe: str, gate: str) -> list[str]:
    """A sequential run asks the dense model what its pairs need, not, as a cell of its own would, everything."""
    names = (DENSE, FITPRUNE) if recipe else DEFAULT_PRUNERS
    return [name for name in names if name != DENSE or gate != "sequential"]


def check_recipe(path: str, models: Sequence[str]) -> None:
    """Raise FitPruneError unless the file (or `published:NAME@P`) is a recipe that fits each of the models, judged by their
    configurations.
    """
    from fitprune import Recipe
    from harness.models.registry import find_model
    from harness.models.shipped import transformers_config

    recipe = Recipe.load(path)
    for model in models:
        try:
            recipe.for_model(transformers_config(find_model(model)))
        except FitPruneError as error:
            raise FitPruneError(f"--recipe {path} does not fit {model}: {error}") from None


def _allowed(max_drop: str | None, gate: str | None, data: str) -> Thresholds | None:
    """What --max-drop says, with the default for what it leaves open; None where neither it nor --gate was given."""
    if max_drop is None and gate is None:
        return None
    default = MAX_DROP.get(data, MAX_DROP_ELSEWHERE)
    return Thresholds.parse("max-drop", f"{default:g}" if max_drop is None else max_drop, default)


def _whole(name: str, value: str | None, default: int | None, least: int) -> int | None:
    if value is None:
        return default
    if not re.fullmatch(r"\d{1,12}", value) or int(value) < least:
        raise FitPruneError(f"--{name} {value} is not a whole number of at least {least}")
    return int(value)


def _float(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _share(value: str) -> float:
    if not 0 < _float(value) < 1:
        raise FitPruneError(f"--reduction {value} is not between 0 and 1; it is the share of the visual tokens' FLOPs to save")
    return float(value)
