"""What measures a cell anew, and what does not."""

import dataclasses
import json
import os
import shutil

import pyarrow.parquet as pq
import pytest

from fitprune import Calibration, Pruner, Recipe
from fitprune.fitting import batches
from harness.answering import evaluate
from harness.bench.bench import Bench
from harness.cells import Cell, CellSettings
from harness.models import digests
from harness.results import result as result_module
from harness.results import sources
from harness.results.key import content_key
from harness.results.once import RunFolder
from harness.results.store import Store
from tests.support import tiny_llava
from tests.support.fake_bench import FakeBench


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A random model `m`, data `d`, and a recipe `r.json`."""
    folder = tmp_path_factory.mktemp("keys")
    tiny_llava.write_all(folder)
    Recipe(drop=[4, 6, 0], visual_tokens=16).save(folder / "r.json")
    return folder


@pytest.fixture
def work(place, tmp_path):
    """A copy of all that, to be spoilt."""
    shutil.copytree(place, tmp_path / "work")
    return tmp_path / "work"


def measured(work, cell, **options):
    """Runs a cell; whether an earlier run's result stood for it."""
    settings = {"data": str(work / "d"), "batch_size": 4, "reductions": (0.3,), **options}
    bench = Bench(CellSettings(**settings), RunFolder(work / "run"), Store(work / "results"), device="cpu")
    with bench.measuring(cell) as found:
        if not found.cached:
            bench.results.write(found.result, found.answers, None if cell.is_dense else found.dense)
    return found


def edit(path):
    path.write_text(path.read_text() + "\n# edited\n")


def break_engine(work, monkeypatch):
    _edited(work, monkeypatch, "fitprune/engine/prefill.py")


def break_prompting(work, monkeypatch):
    _edited(work, monkeypatch, "harness/models/prompting.py")


def break_scoring(work, monkeypatch):
    folder = work / "task"
    shutil.copytree(evaluate.task_folder("gqa"), folder)
    edit(folder / "utils.py")
    monkeypatch.setattr(evaluate, "task_folder", lambda suite: folder)


def break_data(work, monkeypatch):
    path = next((work / "d").rglob("testdev_balanced_instructions/*.parquet"))
    table = pq.read_table(path)
    answers = table["answer"].to_pylist()
    pq.write_table(table.set_column(table.column_names.index("answer"), "answer", [["other", *answers[1:]]]), path)


def break_recipe(work, monkeypatch):
    record = json.loads((work / "r.json").read_text())
    record["drop"][0] += 1
    record.pop("digest", None)
    (work / "r.json").write_text(json.dumps(record))


def break_weights(work, monkeypatch):
    path = work / "m" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def break_tokenizer(work, monkeypatch):
    path = work / "m" / "tokenizer.json"
    path.write_text(path.read_text() + " ")


def _edited(work, monkeypatch, file):
    """The sources of this package, one of them edited, as another process would load them."""
    package, _, inside = file.partition("/")
    home = sources._folder(package)
    shutil.copytree(home, work / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    edit(work / package / inside)
    plain = sources._folder
    monkeypatch.setattr(sources, "_folder", lambda name: work / package if name == package else plain(name))
    sources._code.cache_clear()
    sources._runtime.cache_clear()


@pytest.fixture(autouse=True)
def _fresh():
    yield
    sources._code.cache_clear()
    sources._runtime.cache_clear()


@pytest.mark.parametrize(
    "spoil",
    [
        *(break_engine, break_prompting, break_data, break_weights),
        *(pytest.param(spoil, marks=pytest.mark.exhaustive) for spoil in (break_scoring, break_recipe, break_tokenizer)),
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_whatever_decides_an_answer_is_measured_anew_when_it_changes(work, monkeypatch, spoil):
    cell = Cell(str(work / "m"), "fitprune", None, "gqa", recipe=str(work / "r.json"))
    assert not measured(work, cell).cached
    assert measured(work, cell).cached
    spoil(work, monkeypatch)
    assert not measured(work, cell).cached


@pytest.mark.exhaustive
def test_other_words_for_the_same_cell_find_its_answers(work, monkeypatch):
    """Another spelling of both paths, a copy of the model, the budgets in another order, another batch size and seed."""
    first = Cell(str(work / "m"), "fitprune", 0.3, "gqa")
    found = measured(work, first)
    assert not found.cached
    monkeypatch.chdir(work)
    shutil.copytree("m", "copy")
    shutil.copytree("d", "data")
    monkeypatch.setattr(result_module.platform, "python_version", lambda: "3.11.99")
    result_module.versions.cache_clear()
    for model, options in (
        ("./m", {}),
        ("m", {"data": "./d"}),
        ("copy", {"data": "data"}),
        ("m", {"reductions": (0.5, 0.3)}),
        ("m", {"batch_size": 2, "seed": 5}),
    ):
        again = measured(work, dataclasses.replace(first, model=model), **options)
        assert again.cached, (model, options)
        assert again.result.model == model
        assert again.result.drop == found.result.drop
    result_module.versions.cache_clear()
    results, notes = Store(work / "results").read_all()
    assert not notes
    assert {result.model for result in results} == {str(work / "m"), "copy"}  # one file for each name of the folder
    for result in results:
        assert len(Store(work / "results").read_answers(result)) == result.n


def test_a_recipe_file_and_the_budget_that_it_was_fitted_for_are_one_measurement(work):
    fitted = measured(work, Cell(str(work / "m"), "fitprune", 0.3, "gqa"))
    (file,) = (work / "results" / "recipes").glob("*.json")
    given = measured(work, Cell(str(work / "m"), "fitprune", None, "gqa", recipe=str(file)))
    assert given.cached
    assert given.result.recipe == str(file)
    assert given.result.reduction_asked is None
    assert given.result.score == fitted.result.score


@pytest.mark.exhaustive
def test_each_budget_is_fitted_once_and_the_calibration_kept(work, monkeypatch):
    fitted, batches_measured = [], []
    recipe, measure = Calibration.recipe, batches.measure

    def counted(self, reduction, **options):
        fitted.append(reduction)
        return recipe(self, reduction, **options)

    monkeypatch.setattr(Calibration, "recipe", counted)
    monkeypatch.setattr(batches, "measure", lambda *given: batches_measured.append(1) or measure(*given))
    model = str(work / "m")
    measured(work, Cell(model, "fitprune", 0.3, "gqa"), reductions=(0.3, 0.5))
    assert fitted == [0.3, 0.5]
    statistics = len(batches_measured)
    assert statistics > 0
    measured(work, Cell(model, "fitprune", 0.5, "gqa"), reductions=(0.5,))
    measured(work, Cell(model, "fitprune", 0.5, "gqa"), reductions=(0.5, 0.3))
    assert fitted == [0.3, 0.5]
    measured(work, Cell(model, "fitprune", 0.4, "gqa"), reductions=(0.4,))
    assert fitted == [0.3, 0.5, 0.4]
    assert len(batches_measured) == statistics


def test_in_half_precision_the_batch_size_decides_and_in_a_sequential_run_too():
    known = {
        "schema": 2, "revision": "r", "weights": "w", "pruner": "random", "code": "c", "params": {}, "suite": "gqa",
        "task_code": "t", "metric": "m", "data_digest": "d", "limit": None, "versions": {"python": "3.11.7"}, "device": "cpu",
    }  # fmt: skip

    def key(dtype, size, **more):
        return content_key(known | {"generation": {"batch_size": size, "dtype": dtype}} | more)

    assert key("float32", 4) == key("float32", 8)
    assert key("bfloat16", 4) != key("bfloat16", 8)
    stops = {"sequential": {"margin": 1.0, "seed": 0}}
    assert key("float32", 4, **stops) != key("float32", 8, **stops)
    assert key("float32", 4, versions={"python": "3.11.9"}) == key("float32", 4)
    assert key("float32", 4, versions={"python": "3.12.0"}) != key("float32", 4)


@pytest.mark.parametrize(("package", "cached"), [("baselines", True), ("elsewhere", False)])
def test_the_seed_decides_for_methods_that_may_draw_from_the_global_generators(tmp_path, monkeypatch, package, cached):
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))

    class Drawing(Pruner):
        name = "drawing"

    Drawing.__module__ = f"{package}.drawing"
    monkeypatch.setattr(sources, "package_digest", lambda module: "package")
    for seed, expected in ((0, False), (0, True), (1, cached)):
        bench = FakeBench(CellSettings(seed=seed), RunFolder(tmp_path / "run"), Store(tmp_path / "results"))
        monkeypatch.setattr(bench.resolver.pruners, "of", lambda cell, facts: Drawing())
        with bench.measuring(Cell("m", "random", 0.5, "gqa")) as found:
            if not found.cached:
                bench.results.write(found.result, found.answers, found.dense)
        assert found.cached == expected


def test_a_large_file_is_read_once_for_each_state(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    reads = []
    plain = digests._read
    monkeypatch.setattr(digests, "_read", lambda path: reads.append(path.name) or plain(path))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bytes(digests.LARGE))

    def digest():
        digests._remembered.cache_clear()  # as another process
        return digests.content_digest(path)

    first = digest()
    assert digest() == first
    assert reads == ["weights.safetensors"]
    path.write_bytes(b"1" + bytes(digests.LARGE - 1))
    os.utime(path, ns=(1, 1))
    second = digest()
    assert second != first
    assert digest() == second
    assert len(reads) == 2
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").touch()  # a home that cannot be written
    assert digest() == second
