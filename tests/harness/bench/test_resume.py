"""What an earlier run answered is not asked again: within a cell, across cells, across runs."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import time

import pytest
import torch

from fitprune import FitPrune, FitPruneError, Recipe
from harness.answering.input_cache import InputCache
from harness.bench.bench import Bench
from harness.cells import Cell, CellSettings
from harness.cost.tally import Tally
from harness.models.facts import model_facts, weights_digest
from harness.models.loading import load_model
from harness.results.journal import Journal
from harness.results.key import content_key
from harness.results.once import RunFolder
from harness.results.store import Store
from tests.support import tiny_llava, warm
from tests.support.evaluating import evaluate_cell
from tests.support.suite_runs import PLUGIN, ROOT
from tests.support.tiny_llava import save_tiny, scripted

pytestmark = pytest.mark.releases
PRUNER = FitPrune(Recipe(drop=[4, 6, 0], visual_tokens=16))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A random model `m` and data `d`."""
    folder = tmp_path_factory.mktemp("place")
    tiny_llava.write_all(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(place):
    return load_model(str(place / "m"), "cpu")


def outcome(answers):
    return dataclasses.replace(answers, seconds=0.0)


@pytest.mark.parametrize(
    "torn",
    [
        *(b"", b'{"keys": [["pope"'),
        *(pytest.param(torn, marks=pytest.mark.exhaustive) for torn in (b"\x00\x00", b"[]\n", b'{"keys": []}')),
    ],
)
def test_a_cell_goes_on_after_its_last_finished_batch(place, loaded, tmp_path, monkeypatch, torn):
    data, path = str(place / "d"), tmp_path / "journals" / "k.jsonl"
    whole = Tally(loaded.model.config)
    expected = evaluate_cell(
        loaded, PRUNER, "pope", data=data, batch_size=4, observer=lambda batch: whole.add(batch.cost), journal=Journal(path)
    )
    path.unlink()
    generate, calls = loaded.model.generate, []

    def dies(**inputs):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return generate(**inputs)

    monkeypatch.setattr(loaded.model, "generate", dies)
    journal = Journal(path)
    with pytest.raises(KeyboardInterrupt):
        evaluate_cell(loaded, PRUNER, "pope", data=data, batch_size=4, journal=journal)
    with path.open("ab") as file:
        file.write(torn)
    assert not journal.entries  # what a run itself has written it does not keep
    lines = len(Journal(path).entries)
    assert lines == 2
    left = []
    monkeypatch.setattr(loaded.model, "generate", lambda **inputs: left.append(1) or generate(**inputs))
    again, seen = Tally(loaded.model.config), []

    def watch(batch):
        again.add(batch.cost)
        seen.append(batch.inputs is None)

    resumed = evaluate_cell(loaded, PRUNER, "pope", data=data, batch_size=4, observer=watch, journal=Journal(path))
    assert (len(left), seen) == (1, [True, True, False])
    assert outcome(resumed) == outcome(expected)
    assert (again.flops(), again.reduction()) == (whole.flops(), whole.reduction())
    assert len(Journal(path).entries) == 3


def test_a_batch_that_is_not_in_the_journal_as_a_whole_is_asked_again(place, tmp_path):
    model, journal = scripted({"": "yes"}), Journal(tmp_path / "k.jsonl")
    evaluate_cell(model, None, "pope", data=str(place / "d"), batch_size=4, journal=journal)
    before = len(model.model.batches)
    evaluate_cell(model, None, "pope", data=str(place / "d"), batch_size=6, journal=journal)
    assert len(model.model.batches) == before + 2


@pytest.fixture(scope="module")
def fresh(place, loaded):
    """Suite, and whether dense → the outcome where no inputs are kept."""
    asked = [(suite, pruner) for suite in ("pope", "gqa") for pruner in (None, PRUNER)]
    return {
        (suite, pruner is None): outcome(evaluate_cell(loaded, pruner, suite, data=str(place / "d"), batch_size=4))
        for suite, pruner in asked
    }


@pytest.mark.parametrize("limit", [1 << 29, 30_000, pytest.param(0, marks=pytest.mark.exhaustive)])
def test_kept_inputs_change_no_answer(place, loaded, fresh, limit):
    """Room for all, for a part, for none."""
    cache = InputCache(limit)
    for suite in ("pope", "gqa"):
        for pruner in (None, PRUNER, None):
            kept = evaluate_cell(loaded, pruner, suite, data=str(place / "d"), batch_size=4, cache=cache)
            assert outcome(kept) == fresh[suite, pruner is None]


def test_inputs_are_processed_once(place, loaded, monkeypatch):
    calls, processor = [], type(loaded.processor)
    call = processor.__call__
    monkeypatch.setattr(processor, "__call__", lambda *args, **options: calls.append(1) or call(*args, **options))
    cache = InputCache()
    for pruner in (None, PRUNER):
        evaluate_cell(loaded, pruner, "pope", data=str(place / "d"), batch_size=4, cache=cache)
    assert len(calls) == 3
    evaluate_cell(loaded, None, "pope", data=str(place / "d"), batch_size=4, limit=6, cache=cache)
    assert len(calls) == 5


def test_the_suite_unused_for_longest_makes_room():
    cache = InputCache(300)
    tensors = {"input_ids": torch.zeros(100, dtype=torch.uint8)}
    for name in ("a", "b", "a", "c"):
        cache.of(name).put((len(name),), tensors, [""])
        cache.of(name).put((2,), tensors, [""])
    assert not cache.of("b").holds([(1,)])
    assert cache.of("c").holds([(1,), (2,)])
    assert not cache.of("c").holds([(3,)])
    assert sum(cache.of(name).bytes for name in "abc") <= 300


def bench(place, tmp_path, run, **options):
    settings = CellSettings(data=str(place / "d"), batch_size=4, reductions=(0.3,))
    return Bench(settings, RunFolder(tmp_path / run), Store(tmp_path / "results"), device="cpu", **options)


def finish(made, cell):
    with made.measuring(cell) as measured:
        if not measured.cached:
            made.results.write(measured.result, measured.answers, None if cell.is_dense else measured.dense)
    return measured


@pytest.mark.parametrize("pruner", ["random", "fitprune"])
def test_a_later_run_finds_what_an_earlier_one_left(place, tmp_path, monkeypatch, pruner):
    cell = Cell(str(place / "m"), pruner, 0.3, "mme")
    made = bench(place, tmp_path, "first")
    known = made.resolver.resolve(cell).key
    first = finish(made, cell)
    assert not first.cached
    assert content_key(first.result.to_json()) == known
    other = bench(place, tmp_path, "second")
    other.settings = dataclasses.replace(other.settings)
    for part, name in (
        (other.evaluation, "evaluate"), (other.timing, "_time"), (other.pruners.calibrated, "_fit"), (other.shelf, "model"),
    ):  # fmt: skip
        monkeypatch.setattr(part, name, None)
    again = finish(other, cell)
    assert again.cached
    assert again.result.to_json() | {"answers_digest": ""} == first.result.to_json()
    assert repr(again.answers.answers) == repr(first.answers.answers)  # NaN is not equal to itself
    assert [answer.answer for answer in again.dense.answers] == [answer.answer for answer in first.dense.answers]
    assert repr([answer.score for answer in again.dense.answers]) == repr([answer.score for answer in first.dense.answers])


def test_the_dense_model_is_asked_once_by_all_runs(place, tmp_path, monkeypatch):
    finish(bench(place, tmp_path, "first"), Cell(str(place / "m"), "random", 0.3, "gqa"))
    made, asked = bench(place, tmp_path, "second"), []
    evaluate = made.evaluation.evaluate
    monkeypatch.setattr(made.evaluation, "evaluate", lambda *given: asked.append(given[0].cell.pruner) or evaluate(*given))
    finish(made, Cell(str(place / "m"), "random", 0.5, "gqa"))
    finish(made, Cell(str(place / "m"), "dense", None, "gqa"))
    assert asked == ["random"]


@pytest.mark.exhaustive
def test_a_rerun_measures_all_again_and_the_dense_model_once(place, tmp_path, monkeypatch):
    cells = [Cell(str(place / "m"), "random", reduction, "gqa") for reduction in (0.3, 0.5)]
    for cell in cells:
        finish(bench(place, tmp_path, "first"), cell)
    made, asked = bench(place, tmp_path, "second", rerun=True), []
    evaluate = made.evaluation.evaluate
    monkeypatch.setattr(made.evaluation, "evaluate", lambda *given: asked.append(given[0].cell.is_dense) or evaluate(*given))
    assert not any(finish(made, cell).cached for cell in cells)
    assert asked == [False, True, False]


def test_a_method_whose_code_changed_is_measured_again(place, tmp_path, monkeypatch):
    cell = Cell(str(place / "m"), "random", 0.3, "gqa")
    finish(bench(place, tmp_path, "first"), cell)
    monkeypatch.setattr("harness.answering.arguments.code_of", lambda pruner: "edited")
    assert not finish(bench(place, tmp_path, "second"), cell).cached


@pytest.mark.parametrize("damage", ["truncated", pytest.param("edited", marks=pytest.mark.exhaustive), "answers"])
def test_a_damaged_file_is_put_aside_and_measured_again(place, tmp_path, damage):
    cell, store = Cell(str(place / "m"), "random", 0.3, "gqa"), Store(tmp_path / "results")
    result = finish(bench(place, tmp_path, "first"), cell).result
    path = store.folder / f"{result.name}{'.answers.jsonl' if damage == 'answers' else '.json'}"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "edited":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"score": 99.0}))
    else:
        path.write_text(path.read_text().replace('"score": 0.0', '"score": 1.0', 1))
    if damage == "answers":
        with pytest.raises(FitPruneError, match="not those that were written"):
            store.read_answers(store.read_all().results[0])
    else:
        assert len(store.read_all().notes) == 1
    again = finish(bench(place, tmp_path, "second"), cell)
    assert not again.cached
    assert "put aside and the cell measured again" in again.result.note
    assert path.with_name(f"{path.name}.damaged").exists()
    assert store.read_all().notes == []


def test_a_damaged_shared_file_is_computed_again(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.once("x", lambda: {"n": 1}) == {"n": 1}
    path = tmp_path / "x.json"
    for text in (path.read_text().replace('"n": 1', '"n": 2'), path.read_text()[:-3], "[]", ""):
        path.write_text(text)
        assert folder.once("x", lambda: {"n": 3}) == {"n": 3}


def test_facts_are_those_of_the_loaded_model(place, loaded):
    facts = model_facts(str(place / "m"), "cpu")
    assert (facts.revision, f"torch.{facts.dtype}", facts.device) == (loaded.revision, str(loaded.dtype), loaded.device)
    known, real = (config.get_text_config().to_dict() | {"dtype": None} for config in (facts.config, loaded.model.config))
    assert known == real


def test_the_weights_digest_covers_tokenizer_and_weights(place, tmp_path):
    folder = save_tiny(tmp_path / "copy")
    assert weights_digest(folder) == weights_digest(place / "m")
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    assert weights_digest(folder) != weights_digest(place / "m")


def test_large_files_of_the_hubs_cache_go_by_their_name(place, tmp_path):
    folder = save_tiny(tmp_path / "snapshot")
    weights = folder / "model.safetensors"
    blob = tmp_path / "blobs" / hashlib.sha256(weights.read_bytes()).hexdigest()
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(blob)
    assert weights_digest(folder) == weights_digest(place / "m")


@pytest.mark.exhaustive  # by default test_a_cell_goes_on_after_its_last_finished_batch
def test_a_killed_run_of_the_suites_goes_on_and_gives_what_an_unkilled_one_gives(tmp_path):
    command = [
        warm.python(), "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider", "-q", str(ROOT / "suites" / "test_gqa.py"),
        "--model", "llava-tiny", "--pruner", "random", "--reduction", "0.9", "--limit", "96", "--batch-size", "2",
        "--max-drop", "100", "--device", "cpu", "--results", str(tmp_path / "results"),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    journals = tmp_path / "results" / "journals"

    def batches():
        return sum(len(path.read_bytes().splitlines()) for path in journals.glob("*.jsonl"))

    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as running:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and batches() < 4 and running.poll() is None:
            time.sleep(0.005)
        os.killpg(running.pid, signal.SIGKILL)
    assert batches() >= 4
    assert Store(tmp_path / "results").read_all() == ([], [])
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    (result,), notes = Store(tmp_path / "results").read_all()
    assert not notes
    assert not list(journals.glob("*"))
    made = Bench(CellSettings(limit=96, batch_size=2), RunFolder(tmp_path / "whole"), device="cpu")
    whole = made.run(Cell("llava-tiny", "random", 0.9, "gqa"))
    names = ("score", "dense_score", "drop", "drop_ci95", "n", "flops", "dense_flops", "reduction", "tokens")
    assert [getattr(result, name) for name in names] == [getattr(whole.result, name) for name in names]
    answers = Store(tmp_path / "results").read_answers(result)
    assert [answer["answer"] for answer in answers] == [answer.answer for answer in whole.answers.answers]
