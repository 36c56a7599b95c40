"""The command line of `pytest suites/`: what can be asked for, and what is wrong with it, before any work starts."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fitprune.arguments import known_names, listed, names, one_of, shares, whole
from fitprune.errors import FitPruneError
from harness.bench.again import BATCH_SIZE, suites_command
from harness.cells import AUTHORS, DENSE, FITPRUNE, Cell, CellSettings
from harness.gate.saved import SavedRun, run_name
from harness.gate.thresholds import Thresholds
from harness.models.devices import AUTO, check_device
from harness.models.family_names import ChosenModel, choose_model
from harness.models.registry import find_model
from harness.plugin.selection import DEST
from harness.results.store import Store
from harness.statistics import GATES
from harness.tasks.specs import SUITES, find_suite

DEFAULT_PRUNERS = (DENSE, FITPRUNE, "fastv", "random")
DEFAULT_REDUCTIONS = (0.3, 0.5, 0.7)
MAX_DROP = {"mini": 5.0}  # points; the mini suites are small, and the model that ships with the package suffers from pruning
MAX_DROP_ELSEWHERE = 1.0
# Options that `RunOptions` and its settings have under their own names.
_AS_GIVEN = ("results", "device", "recipe", "rerun", "plan", "save", "compare", "compare_fail", "positions", "engine")
_OF_PRUNERS = ("reduction", "positions", "recipe")
_OF_SETTINGS = ("data", "limit", "batch_size", "seed", "allow_broken_images", "judge", "frames")


@dataclass(frozen=True)
class Option:
    """An option of the suites.

    Attributes:
        metavar: what stands for the value in the help; empty for a switch.
        type: text -> value.
        default: the value where the option is not given; None where other options decide it.
        repeatable: whether a further use adds to a comma list.
    """

    name: str
    metavar: str
    help: str
    type: Callable[[str], Any] = str
    default: Any = None
    repeatable: bool = False

    @property
    def field(self) -> str:
        """Its name as that of an attribute."""
        return self.name.replace("-", "_")

    def add_to(self, group: pytest.OptionGroup) -> None:
        """Register it. pytest keeps the text: `value` says in one line what is wrong with one."""
        action: dict[str, Any] = {"action": "append" if self.repeatable else "store", "metavar": self.metavar, "default": None}
        if not self.metavar:
            action = {"action": "store_true", "default": False}
        group.addoption(f"--{self.name}", dest=DEST + self.field, help=self.help.replace("%", "%%"), **action)

    def value(self, namespace: argparse.Namespace) -> Any:
        """Read it. Raises FitPruneError, in one line, for a text that is no value."""
        given = getattr(namespace, DEST + self.field, None)
        if not self.metavar:
            return bool(given)
        if given is None:
            return self.default
        if given in ("", [""]):
            raise FitPruneError(f"--{self.name} is empty")
        try:
            return self.type(",".join(given) if self.repeatable else given)
        except argparse.ArgumentTypeError as error:
            raise FitPruneError(f"--{self.name} {error}") from None


OPTIONS = (
    Option(
        "model",
        "NAME",
        "registry name, family's name, hub id or local folder; repeatable, comma lists (default: llava-tiny)",
        names,
        ("llava-tiny",),
        repeatable=True,
    ),
    Option(
        "pruner",
        "NAME",
        f"method names, dense, all, composed (pairs), A+B; comma lists (default: {','.join(DEFAULT_PRUNERS)})",
        names,
        repeatable=True,
    ),
    Option(
        "reduction",
        "R",
        "shares of the visual tokens' FLOPs to save, between 0 and 1 (default: 0.3,0.5,0.7)",
        shares,
        repeatable=True,
    ),
    Option(
        "suite",
        "NAME",
        "suites by name, also TASK or TASK:METRIC of lmms-eval; comma lists (default: those whose files are named, "
        "of the whole folder the everyday ones)",
        names,
        (),
        repeatable=True,
    ),
    Option("judge", "URL[#MODEL]", "OpenAI-compatible endpoint of the language model that scores some suites", default=""),
    Option(
        "max-drop",
        "POINTS|SUITE:POINTS,…",
        "the gate: what a cell may lose, on all suites or on one (default: no gate; with --gate 5 on mini data, else 1)",
        Thresholds.parse,
    ),
    Option(
        "gate",
        "GATE",
        "significant: a cell fails when its drop is above --max-drop with 95 % confidence (default); "
        "certified: it passes only when its drop is below with 95 % confidence; "
        "sequential: so too, but questions are asked in random order, only until that is decided",
        one_of(*GATES),
    ),
    Option(
        "positions",
        "authors|kept|repacked",
        "position ids of what stays: as a method's authors have them (default), kept, or numbered anew; a row for each",
        listed(one_of(AUTHORS, "kept", "repacked")),
        (AUTHORS,),
        repeatable=True,
    ),
    Option("save", "NAME", "keep this run's cells under a name, in the results folder's saved/NAME", run_name, ""),
    Option("compare", "NAME", "compare each cell with the saved run's, on the same questions", run_name, ""),
    Option(
        "compare-fail",
        "POINTS|SUITE:POINTS|latency:P%,…",
        "what a cell may lose against the saved run, in points, and in prefill time relative to dense",
        partial(Thresholds.parse, latency=True),
    ),
    Option("limit", "N", "questions per suite (default: all)", whole()),
    Option("frames", "N", "frames that a model is shown of each video (default: 32; of the mini suite's 8)", whole()),
    Option(
        "data",
        "mini|hub|DIR",
        "embedded data (default), the public data sets, or a folder of parquet files in their columns",
        default="mini",
    ),
    Option(
        "engine",
        "ray|ray:auto|ray://HOST:PORT",
        "measure on a Ray cluster: one of this machine's cores and GPUs, the one it is part of, or another "
        "(default: in this process)",
        default="",
    ),
    Option("results", "DIR", "where each cell leaves its result (default: results)", default="results"),
    Option(
        "device",
        "DEVICE",
        "cpu, cuda, cuda:N or auto, which spreads a model over all GPUs "
        "(default: the CUDA devices, dealt out to the workers by turn, else the CPU)",
    ),
    Option("batch-size", "N", "questions per batch; changes no answer (default: 16)", whole(), BATCH_SIZE),
    Option(
        "recipe",
        "FILE|published:NAME@P",
        "a FitPrune recipe, or one that its authors published, instead of fitting one for each --reduction",
        default="",
    ),
    Option("plan", "", "print the cells, which of them the results have, and what the others will cost; run nothing"),
    Option("rerun", "", "measure cells again that the results have"),
    Option(
        "allow-broken-images",
        "",
        "count a question whose picture or video cannot be decoded as wrong, with a note, instead of ending its cell",
    ),
    Option("seed", "N", "seed of the pruners that draw (default: 0)", whole(0), 0),
)


def add_options(parser: pytest.Parser, only_free: bool = False) -> None:
    """Register the options, or `only_free` ones. Else raises pytest.UsageError where another plugin has taken a name."""
    group = parser.getgroup("fitprune", "fitprune: accuracy and cost of visual token pruning (pytest suites/)")
    others: Any = [parser._anonymous, *parser._groups] if only_free else []
    taken = {name for other in others for option in other.options for name in option.names()}
    try:
        for option in OPTIONS:
            if f"--{option.name}" not in taken:
                option.add_to(group)
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
        suites: by name, what `--suite` names; empty where it is not given.
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
    suites: tuple[str, ...] = ()
    engine: str = ""
    chosen: tuple[ChosenModel, ...] = ()

    @classmethod
    def parse(cls, namespace: argparse.Namespace) -> "RunOptions":
        """Read pytest's namespace. Raises FitPruneError, in one line, for a value that cannot be meant."""
        given = {option.field: option.value(namespace) for option in OPTIONS}
        recipe, gate, save, compare = given["recipe"], given["gate"] or "significant", given["save"], given["compare"]
        for option in OPTIONS if given["pruner"] == (DENSE,) else ():
            if option.name in _OF_PRUNERS and given[option.field] != option.default:
                raise FitPruneError(f"--{option.name} has no effect on --pruner {DENSE}, which prunes nothing; leave it out")
        if recipe and given["reduction"]:
            raise FitPruneError("--recipe and --reduction exclude each other: the recipe says how much is saved")
        if given["compare_fail"] is not None and not compare:
            raise FitPruneError("--compare-fail says what may be lost against a saved run; name it with --compare NAME")
        if save and save == compare:
            raise FitPruneError(f"--save {save} and --compare {save} name one run: it would replace what it is compared with")
        if gate == "sequential" and (save or compare):
            raise FitPruneError("--gate sequential stops where it is decided; --save and --compare need all answers of a run")
        max_drop: Thresholds | None = given["max_drop"]
        if max_drop is not None or given["gate"] is not None:
            max_drop = (max_drop or Thresholds()).otherwise(MAX_DROP.get(given["data"], MAX_DROP_ELSEWHERE))
        reductions = given["reduction"] or DEFAULT_REDUCTIONS
        return cls(
            models=given["model"],
            suites=tuple(dict.fromkeys(find_suite(name).name for name in given["suite"])),
            pruners=given["pruner"] or _default_pruners(recipe, gate),
            reductions=reductions,
            max_drop=max_drop,
            gate=gate,
            settings=CellSettings(reductions=reductions, **{name: given[name] for name in _OF_SETTINGS}),
            **{name: given[name] for name in _AS_GIVEN},
        )

    def expanded(self) -> "RunOptions":
        """The same with `all` and `composed` spelled out. Raises FitPruneError, with the nearest names, for an unknown one."""
        from baselines.registry import COMPOSED, PRUNERS, check_name

        asked = [each for name in self.pruners for each in (COMPOSED if name == "composed" else (name,))]
        composed = [name for name in asked if "+" in name]
        for name in composed:
            check_name(name)
        pruners = known_names("pruner", asked, PRUNERS, also=composed)
        if self.recipe and set(pruners) - {DENSE, FITPRUNE}:
            raise FitPruneError(f"--recipe is for --pruner {FITPRUNE}; run the other pruners by themselves, with --reduction")
        return replace(self, pruners=pruners, every="all" in self.pruners)

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

        specs = [find_suite(suite) for suite in suites]
        for thresholds in (self.max_drop, self.compare_fail):
            if thresholds is not None:
                thresholds.check({*SUITES, *suites})
        if self.engine:  # models and devices are the workers' business
            from harness.cluster.engines import check_engine

            check_engine(self.engine)
            if self.device not in (None, "cpu", "cuda", AUTO):
                raise FitPruneError(f"--device {self.device} with --engine: Ray deals the GPUs out; write cpu, cuda or auto")
        else:
            check_device(self.device)
            for model in self.models:
                require_model(model)
        for spec in specs:
            spec.require_judge(self.settings.judge)
            if spec.metric.full is not None:
                check_data(spec.name, self.settings.data)
        if self.settings.judge or any(spec.metric.full is None for spec in specs):
            from harness.answering.judge import open_judge
            from harness.answering.trial import tried
            from harness.tasks.build import build_task

            judge = open_judge(self.settings.judge)
            for spec in specs:
                if spec.metric.full is None:
                    tried(spec, build_task(spec.name, self.settings.data, self.settings.limit), judge)
        kinds, frames = {spec.video is not None for spec in specs}, self.settings.frames
        if frames is not None and kinds == {False}:
            raise FitPruneError(f"--frames {frames} has no effect: no suite of this run is about videos; leave it out")
        if self.recipe:
            check_recipe(self.recipe, self.models)
        elif any(FITPRUNE in name.split("+") for name in self.pruners):
            for videos in sorted(kinds):
                check_samples(self.settings.data, videos)
        store = Store(self.results)
        if self.compare:
            SavedRun(store, self.compare).check(self.models, self.settings.data, self.settings.limit)
        store.check_writable()

    def command(self, cell: Cell) -> str:
        """The command that runs one cell again, from whatever folder."""
        settings = replace(self.settings, reductions=() if cell.reduction is None else (cell.reduction,))
        if settings.data not in ("mini", "hub"):
            settings = replace(settings, data=_from_anywhere(settings.data))
        return suites_command(
            [cell.suite],
            _from_anywhere(cell.model) if find_model(cell.model).kind == "folder" else cell.model,
            [cell.pruner],
            settings,
            recipe=_from_anywhere(cell.recipe) if Path(cell.recipe).is_file() else cell.recipe,
            max_drop=self.allowed(cell.suite),
            gate="" if self.gate == "significant" else self.gate,
            positions=[cell.positions] if cell.positions else (),
            device=self.device,
        )


def _from_anywhere(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _default_pruners(recipe: str, gate: str) -> tuple[str, ...]:
    """A sequential run asks the dense model what its pairs need, not, as a cell of its own would, everything."""
    pruners = (DENSE, FITPRUNE) if recipe else DEFAULT_PRUNERS
    return tuple(name for name in pruners if name != DENSE or gate != "sequential")


def check_recipe(path: str, models: Sequence[str]) -> None:
    """Raise FitPruneError unless the file (or `published:NAME@P`) is a recipe that fits each of the models, judged by their
    configurations.
    """
    from fitprune import Recipe
    from harness.models.shipped import transformers_config

    recipe = Recipe.load(path)
    for model in models:
        try:
            recipe.for_model(transformers_config(find_model(model)))
        except FitPruneError as error:
            raise FitPruneError(f"--recipe {path} does not fit {model}: {error}") from None
