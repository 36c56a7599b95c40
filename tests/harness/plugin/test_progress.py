"""Where a long run stands, and what it would do."""

import dataclasses
import json
from pathlib import Path

import pytest

import harness.plugin.cell
import harness.plugin.parametrize
import harness.plugin.session  # noqa: F401
from harness.answering.evaluate import sample_inputs
from harness.bench.bench import Bench
from harness.bench.planning import Planner, lines_of
from harness.cells import Cell, CellSettings
from harness.cost.flops import count
from harness.models.loading import load_model, load_processor_of
from harness.plugin.progress import Progress, is_quiet
from harness.plugin.summary import CellReport
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.tasks.isolation import lmms_eval_evaluator
from harness.words import duration
from tests.support import tiny_llava
from tests.support.results import answers, result
from tests.support.suite_runs import PLUGIN

pytestmark = pytest.mark.releases
pytest_plugins = ["pytester"]


def report(cached=False, **changes):
    made = result(**changes)
    return CellReport(made.cell, "pass", made, cached=cached)


@pytest.mark.parametrize(
    ("terminal", "environment", "expected"),
    [(True, {}, False), (False, {}, True), (True, {"CI": "true"}, True), (True, {"CI": "false"}, False)],
)
def test_nobody_watches_a_log(terminal, environment, expected):
    assert is_quiet(terminal, environment) is expected


@pytest.mark.parametrize(("quiet", "gap"), [(True, 60), (False, 5)])
def test_lines_keep_their_distance_and_the_last_is_always_said(quiet, gap):
    now = [0.0]
    progress = Progress(300, quiet, clock=lambda: now[0])
    said = []
    for second in range(300):
        now[0] = second
        progress.ended(report())
        if progress.due():
            said.append(second)
        assert progress.due() is None  # once
    assert said == [*range(gap, 299, gap), 299]


def test_the_line_says_cells_speed_time_and_accuracy():
    now = [0.0]
    progress = Progress(5, False, clock=lambda: now[0])
    progress.ended(report(cached=True, score=70.0, dense_score=90.0))
    progress.ended(report(score=80.0, dense_score=92.0))
    progress.ended(report(pruner="dense", reduction_asked=None, score=92.0, dense_score=92.0))
    progress.ended(CellReport(Cell("m", "fastv", 0.9, "gqa"), "cannot", reason="-"))
    now[0] = 300.0
    # 200 questions in 300 s; three cells that were no earlier run's took 100 s each.
    assert progress.due() == (
        "4 of 5 cells (1 cached), 1 left; 0.667 questions/s; about 2 min left; accuracy so far 75.0 pruned, 91.0 dense"
    )


@pytest.mark.parametrize(("seconds", "said"), [(42, "42 s"), (301, "5 min"), (12000, "3 h 20 min")])
def test_durations(seconds, said):
    assert duration(seconds) == said


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny_llava.write_all(folder)
    lmms_eval_evaluator()
    return folder


def settings(place):
    return CellSettings(data=str(place / "d"), reductions=(0.3, 0.999))


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_plan_of_an_empty_folder_runs_and_writes_nothing(place, tmp_path, monkeypatch):
    model = str(place / "m")
    monkeypatch.setattr("harness.bench.shelf.load_model", None)
    planner = Planner(settings(place), Store(tmp_path / "results"), "cpu")
    cells = [Cell(model, pruner, 0.3, "gqa") for pruner in ("random", "fitprune")]
    cells += [Cell(model, "dense", None, "mme"), Cell(model, "fastv", 0.999, "gqa")]
    random, fitprune, dense, fastv = planner.plan(cells)
    assert list(tmp_path.iterdir()) == []
    assert [plan.state for plan in (random, fitprune, dense, fastv)] == ["to run", "to run", "to run", "cannot"]
    assert (fitprune.flops, fitprune.seconds, random.seconds) == (None, None, None)
    assert fitprune.reason == "a recipe is fitted first"
    assert "reaches" in fastv.reason
    assert random.questions == 6
    assert random.prefill_only
    assert 0 < random.flops / 6 < dense.flops / 12
    text = "\n".join(lines_of([random, fitprune, dense, fastv]))
    assert "4 cells: 3 to run, 1 cannot" in text
    assert "unknown for 1 cell\n" in text
    assert "time in one process: unknown" in text


def test_a_method_for_videos_has_its_reason_on_a_suite_of_pictures(place, tmp_path):
    cells = [Cell(str(place / "m"), pruner, 0.3, "gqa") for pruner in ("evs", "vidcom2", "evs+fastv")]
    plans = Planner(settings(place), Store(tmp_path / "results"), "cpu").plan(cells)
    assert [plan.state for plan in plans] == ["cannot"] * 3
    assert plans[0].reason == "evs prunes videos, by what changes from frame to frame; suite 'gqa' shows pictures"


def test_the_flops_of_prompts_are_those_of_the_model(place, tmp_path):
    """All gqa questions of the test data are equally long, so that the first ones stand for all."""
    loaded = load_model(str(place / "m"), "cpu")
    planner = Planner(settings(place), Store(tmp_path / "results"), "cpu")
    cells = [Cell(str(place / "m"), "dense", None, "gqa"), Cell(str(place / "m"), "random", 0.3, "gqa")]
    dense, random = planner.plan(cells)
    inputs = next(sample_inputs(loaded, "gqa", data=str(place / "d"), batch_size=6))
    assert dense.flops == count(loaded.model, inputs).total
    assert random.flops == count(loaded.model, inputs, planner.resolver.resolve(cells[1]).pruner).total


def test_a_plan_knows_what_is_cached_begun_and_measured(place, tmp_path):
    model, store = str(place / "m"), Store(tmp_path / "results")
    bench = Bench(settings(place), RunFolder(tmp_path / "run"), store, "cpu")
    cells = {name: Cell(model, "fitprune", 0.3, name) for name in ("gqa", "pope")}
    with bench.measuring(cells["gqa"]) as measured:
        store.write(dataclasses.replace(measured.result, seconds=12.0), measured.answers, measured.dense)
    store.journal(bench.resolver.resolve(cells["pope"]).key).append({"keys": []})
    before = everything(tmp_path)
    planner = Planner(settings(place), store, "cpu")
    cached, begun, out = planner.plan([*cells.values(), Cell(model, "fitprune", 0.999, "gqa")])
    assert everything(tmp_path) == before
    assert (cached.state, begun.state, out.state) == ("cached", "begun", "cannot")
    assert begun.seconds == 12.0 / 6 * 12
    again = Planner(settings(place), store, "cpu", rerun=True).plan([cells["gqa"]])[0]
    assert (again.state, again.flops) == ("to run", pytest.approx(measured.result.flops * 6))
    path = store.folder / f"{measured.result.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"score": 1.0}))
    assert planner.plan([cells["gqa"]])[0].state == "to run"


def test_the_time_is_told_by_the_results_that_are_most_alike(place, tmp_path):
    """Of the same model: by those of the method on the suite, else of the method, else of any; 1, 3 and 11 s a question."""
    model, store = str(place / "m"), Store(tmp_path / "results")
    for pruner, suite, seconds in (("random", "gqa", 1), ("random", "pope", 5), ("fastv", "gqa", 27)):
        made = result(model=model, pruner=pruner, suite=suite, reduction_asked=0.7, seconds=100.0 * seconds)
        store.write(made, answers(), answers())
    cells = [Cell(model, "random", 0.3, "gqa"), Cell(model, "random", 0.3, "mme"), Cell(model, "uniform", 0.3, "gqa")]
    plans = Planner(settings(place), store, "cpu").plan(cells)
    assert [plan.seconds / plan.questions for plan in plans] == [1, 3, 11]


def test_the_processor_alone_is_that_of_the_model(place):
    loaded, alone = load_model(str(place / "m"), "cpu"), load_processor_of(str(place / "m"))
    assert alone.to_dict() == loaded.processor.to_dict()
    assert alone.tokenizer.padding_side == loaded.processor.tokenizer.padding_side == "left"
    assert alone.chat_template == loaded.processor.chat_template


def test_plan_as_typed(place, pytester):
    suites = Path(__file__).resolve().parents[3] / "suites"
    ran = pytester.runpytest_inprocess(
        *PLUGIN, "-p", "no:cacheprovider", str(suites / "test_gqa.py"), "--model", str(place / "m"), "--device", "cpu",
        "--data", str(place / "d"), "--pruner", "dense,random", "--reduction", "0.3", "--plan", "-n", "2",
    )  # fmt: skip
    assert ran.ret == 0
    ran.stdout.fnmatch_lines(["*random-0.3*gqa*to run*6*unknown", "2 cells: 2 to run", "*no tests ran*"])
    assert [path.name for path in pytester.path.iterdir() if path.name != "__pycache__"] == []
