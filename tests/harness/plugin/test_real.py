"""Nothing made up: a small random model, lmms-eval's tasks, measured costs, through pytest and back from the results folder."""

import json
import math

import pytest

import harness.plugin.cell
import harness.plugin.parametrize
import harness.plugin.session  # noqa: F401
from fitprune import Recipe
from harness.answering.evaluate import sample_inputs
from harness.bench.bench import Bench
from harness.cells import Cell, CellSettings
from harness.cost.flops import count
from harness.cost.tally import Tally
from harness.models.loading import load_model
from harness.results.once import RunFolder
from harness.results.store import Store
from harness.tasks.isolation import lmms_eval_evaluator
from tests.support import tiny_llava
from tests.support.evaluating import evaluate_cell
from tests.support.suite_runs import PLUGIN, SUITES

pytestmark = pytest.mark.releases
pytest_plugins = ["pytester"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a random model `m`, data `d` of a few questions a suite, and calibration samples."""
    folder = tmp_path_factory.mktemp("real")
    tiny_llava.write_all(folder)
    # Imports everything here: pytester forgets what is imported inside a run, and datasets cannot be imported twice.
    lmms_eval_evaluator()
    next(sample_inputs(load_model(str(folder / "m"), "cpu"), "gqa", data=str(folder / "d")))
    return folder


@pytest.fixture
def bench(place, tmp_path):
    return Bench(CellSettings(data=str(place / "d"), reductions=(0.3, 0.999)), RunFolder(tmp_path))


@pytest.mark.releases_short
def test_a_run_of_the_suites(place, pytester, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    results = pytester.path / "results"
    ran = pytester.runpytest_inprocess(
        *PLUGIN, "-p", "no:cacheprovider", str(SUITES / "test_gqa.py"), str(SUITES / "test_mme.py"),
        "--model", str(place / "m"), "--data", str(place / "d"), "--results", str(results),
        "--pruner", "dense,fitprune,random", "--reduction", "0.3", "--max-drop", "100",
    )  # fmt: skip
    assert ran.parseoutcomes() == {"failed": 6}  # random weights answer nothing right, and nothing is compared with nothing
    ran.stdout.fnmatch_lines(["*the dense * scores 0.0 on gqa: it has nothing to lose, and no drop says anything; *"])
    read, notes = Store(results).read_all()
    assert not notes
    by_cell = {(result.pruner, result.suite): result for result in read}
    assert len(by_cell) == 6
    for (pruner, suite), result in by_cell.items():
        dense = by_cell["dense", suite]
        assert result.dense_score == dense.score
        assert result.drop == pytest.approx(dense.score - result.score)
        assert result.dense_flops == dense.flops
        assert result.latency_ms["prefill"] > 0
        assert result.latency_ms["on"] == result.device == "cpu"
        assert result.memory_mb > 0
        assert result.n == {"gqa": 6, "mme": 8}[suite]  # MME: without the four questions of the cognition category
        assert (result.reduction == 0) == (pruner == "dense")
        assert result.reduction_end_to_end == pytest.approx(1 - result.flops / result.dense_flops)
    # 16 visual tokens: one token is a step of some 4 points of reduction.
    assert by_cell["random", "gqa"].reduction == pytest.approx(0.3, abs=0.04)
    assert by_cell["fitprune", "gqa"].reduction == pytest.approx(0.3, abs=0.04)
    assert sum(by_cell["fitprune", "gqa"].params["drop"]) > 0
    (saved,) = (results / "recipes").glob("m-*-0.3.json")
    assert Recipe.load(saved).drop == by_cell["fitprune", "gqa"].params["drop"]
    assert json.loads(next(results.glob("*-random-*gqa*.json")).read_text())["params"]["seed"] == 0


def test_flops_are_those_of_the_questions_really_asked(place):
    loaded = load_model(str(place / "m"), "cpu")
    tally, one_by_one = Tally(loaded.model.config), []

    def watch(batch):
        tally.add(batch.cost)
        one_by_one.append(count(loaded.model, batch.inputs, new_tokens=batch.records[0].new_tokens).total)

    evaluate_cell(loaded, None, "gqa", data=str(place / "d"), batch_size=1, observer=watch)
    assert tally.flops() == pytest.approx(sum(one_by_one) / 6)
    assert tally.reduction() == 0
    batched = Tally(loaded.model.config)
    evaluate_cell(loaded, None, "gqa", data=str(place / "d"), batch_size=4, observer=lambda batch: batched.add(batch.cost))
    assert batched.flops() == tally.flops()


def test_a_budget_out_of_reach_spoils_no_other(place, bench):
    from fitprune import BudgetError

    model = str(place / "m")
    with pytest.raises(BudgetError, match="reaches"):
        bench.resolver.resolve(Cell(model, "fitprune", 0.999, "gqa"))
    assert sum(bench.resolver.resolve(Cell(model, "fitprune", 0.3, "gqa")).pruner.recipe.drop) > 0


def test_one_fit_serves_all_budgets_and_processes(place, bench, monkeypatch):
    cell = Cell(str(place / "m"), "fitprune", 0.3, "gqa")
    first = bench.resolver.resolve(cell).pruner.recipe
    monkeypatch.setattr("harness.pruners.calibrated.Calibration", None)
    other = Bench(bench.settings, bench.evaluation.shared)
    assert other.resolver.resolve(cell).pruner.recipe == first


def test_only_methods_that_draw_get_the_seed(place, tmp_path):
    bench = Bench(CellSettings(seed=5), RunFolder(tmp_path))
    model = str(place / "m")
    assert bench.resolver.resolve(Cell(model, "random", 0.3, "gqa")).pruner.seed == 5
    assert "seed" not in bench.resolver.resolve(Cell(model, "fastv", 0.3, "gqa")).pruner.params()


def test_a_given_recipe_is_taken_as_it_is(place, bench, tmp_path):
    Recipe([0, 4, 4], 16).save(tmp_path / "mine.json")
    cell = Cell(str(place / "m"), "fitprune", None, "gqa", str(tmp_path / "mine.json"))
    result = bench.run(cell).result
    assert result.params["drop"] == [0, 4, 4]
    assert result.tokens_per_layer == [16, 12, 8]
    assert (result.reduction_asked, result.recipe) == (None, cell.recipe)
    assert result.name.startswith("m-fitprune-mine-gqa-")


def test_unscored_answers_come_back_from_the_shared_folder_as_nan(place, bench):
    cell = bench.resolver.resolve(Cell(str(place / "m"), "dense", None, "mme"))
    first, again = (made.evaluation.once(cell) for made in (bench, Bench(bench.settings, bench.evaluation.shared)))
    cognition = [answer for answer in again.answers.answers if answer.group == "code_reasoning"]
    assert cognition
    assert all(math.isnan(answer.score) for answer in cognition)
    assert again.flops == first.flops


@pytest.mark.exhaustive
def test_a_run_in_stretches_that_decides_nothing_is_the_full_run(place, tmp_path):
    """Six questions are too few for any margin: all are asked, in two goes, and every figure is the full run's."""
    cell = Cell(str(place / "m"), "fastv", 0.3, "gqa")
    settings = CellSettings(data=str(place / "d"), batch_size=1)
    full = Bench(settings, RunFolder(tmp_path / "a")).run(cell)
    part = Bench(settings, RunFolder(tmp_path / "b"), Store(tmp_path / "r"), margin=lambda suite: 5.0).run(cell)
    assert part.answers.answers == full.answers.answers
    assert part.dense.answers == full.dense.answers
    for name in ("score", "dense_score", "drop", "flops", "dense_flops", "reduction", "n", "clusters", "tokens"):
        assert getattr(part.result, name) == pytest.approx(getattr(full.result, name)), name
    assert (part.result.full_n, full.result.full_n) == (6, None)
    assert part.result.name != full.result.name
    low, high = part.result.drop_ci95
    assert low < full.result.drop_ci95[0] <= full.result.drop_ci95[1] < high


def test_a_killed_run_in_stretches_goes_on(place, tmp_path, monkeypatch):
    """What stands in a stretch's journal is not asked again."""
    cell = Cell(str(place / "m"), "fastv", 0.3, "gqa")
    settings, store = CellSettings(data=str(place / "d"), batch_size=1), Store(tmp_path / "r")

    def bench(folder):
        return Bench(settings, RunFolder(tmp_path / folder), store, margin=lambda suite: 5.0)

    monkeypatch.setattr("harness.bench.outcome.computed", lambda *given: 1 / 0)  # when all is asked
    with pytest.raises(ZeroDivisionError), bench("a").measuring(cell):
        pass
    monkeypatch.undo()
    monkeypatch.setattr("harness.answering.lmms_model.generate", lambda *given: 1 / 0)
    with bench("b").measuring(cell) as measured:
        assert (measured.cached, measured.result.n) == (False, 6)
    assert not list((tmp_path / "r" / "journals").glob("*"))
