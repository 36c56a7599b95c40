"""The parts of a bench, one by one: cells are resolved once, what changed meanwhile is noticed, costs are of all questions."""

import hashlib

import pytest

from fitprune import FitPruneError
from harness.bench.evaluation import Evaluated
from harness.bench.shelf import NeedsWeights, OutlineShelf, Shelf
from harness.cells import Cell, CellSettings
from harness.models.facts import model_facts
from harness.models.loading import ModelOutline
from harness.results.key import content_key
from harness.results.once import ReadOnlyFolder, RunFolder
from harness.results.store import Store
from tests.support.fake_bench import FakeBench
from tests.support.tiny_llava import save_tiny

CELL = Cell("m", "random", 0.5, "gqa")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes benches with made-up answers."""
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))

    def make(**options):
        return FakeBench(CellSettings(), RunFolder(tmp_path / "run"), Store(tmp_path / "results"), **options)

    return make


def counting(monkeypatch, part, name):
    """The arguments of each call of a part's method, from now on."""
    plain, calls = getattr(part, name), []
    monkeypatch.setattr(part, name, lambda *given: calls.append(given) or plain(*given))
    return calls


@pytest.mark.parametrize("margin", [None, lambda suite: 5.0])
def test_a_cell_is_resolved_once_with_what_it_is_compared_with(made, monkeypatch, margin):
    bench = made(margin=margin)
    facts = counting(monkeypatch, bench.shelf, "facts")
    pruners = counting(monkeypatch, bench.resolver.pruners, "of")
    with bench.measuring(CELL) as measured:
        assert measured.result.name.startswith("m-random-0.5-gqa-")
    assert [name for (name,) in facts] == ["m"]
    assert sorted(cell.pruner for cell, _ in pruners) == ["dense", "random"]


def test_what_is_resolved_knows_its_key_and_the_cell_that_it_is_compared_with(made):
    resolver = made().resolver
    cell, dense = resolver.resolve(CELL), resolver.resolve(Cell("m", "dense", None, "gqa"))
    assert cell.dense is dense is dense.dense
    assert cell.key == content_key(cell.identity) != dense.key
    with pytest.raises(AttributeError):
        cell.key = "other"


@pytest.mark.parametrize("cell", [CELL, Cell("m", "dense", None, "gqa")])
def test_data_that_changed_during_the_run_is_noticed(made, monkeypatch, cell):
    bench = made()
    before = bench.resolver.conditions("gqa", "float32") | {"data_digest": "before"}
    monkeypatch.setattr(bench.resolver, "conditions", lambda suite, dtype: before)
    with pytest.raises(FitPruneError, match=r"^the data of gqa changed while the run was going on; run it again$"):
        bench.run(cell)


def test_the_dense_cost_of_stretches_is_the_mean_over_their_questions(made, monkeypatch):
    """Stretches of different sizes, whose questions cost differently."""
    bench = made(margin=lambda suite: 0.001)
    plain, sizes = bench.evaluation.evaluate, []

    def evaluate(resolved, journal, task, tally=None):
        found = plain(resolved, journal, task, tally)
        if resolved.cell.is_dense:
            sizes.append(len(task.rows))
            return Evaluated(found.answers, sum(row**2 for row in task.rows) / len(task.rows), 0.0)
        return Evaluated(found.answers, 1.0, 0.5)

    monkeypatch.setattr(bench.evaluation, "evaluate", evaluate)
    monkeypatch.setattr("harness.bench.stretches.FIRST_BATCHES", 1)
    monkeypatch.setattr("harness.bench.stretches.GROWTH", 1)
    measured = bench.run(CELL)
    assert len(set(sizes)) > 1
    asked = [answer.doc_id for answer in measured.dense.answers]
    assert len(asked) == sum(sizes)
    assert measured.result.dense_flops == pytest.approx(sum(row**2 for row in asked) / len(asked))


@pytest.mark.parametrize("name", ["generation_config.json", "chat_template.jinja", "tokenizer.model", "merges.txt"])
def test_whatever_else_of_a_checkpoint_decides_an_answer_is_in_the_key(tmp_path, name):
    folder = save_tiny(tmp_path / "m")
    (folder / name).write_text("{}")
    before = model_facts(str(folder), "cpu").weights
    (folder / name).write_text('{"a": 1}')
    assert model_facts(str(folder), "cpu").weights != before


def test_weights_are_read_for_their_digest_once_a_process(tmp_path, monkeypatch):
    folder, read, plain = save_tiny(tmp_path / "m"), [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: read.append(file.name) or plain(file, kind))
    for shelf in (OutlineShelf("cpu"), Shelf("cpu")):
        facts = shelf.facts(str(folder))
    assert Shelf("cpu").model(str(folder)).revision == facts.revision
    assert read.count(str(folder / "model.safetensors")) == 1
    other = bytearray((folder / "model.safetensors").read_bytes())
    other[-1] ^= 1
    (folder / "model.safetensors").write_bytes(other)
    assert model_facts(str(folder), "cpu").weights != facts.weights


def test_a_shelf_of_outlines_loads_no_weights(tmp_path, monkeypatch):
    folder = save_tiny(tmp_path / "m")
    monkeypatch.setattr("harness.bench.shelf.load_model", None)
    shelf = OutlineShelf("cpu")
    assert isinstance(shelf.outline(str(folder)), ModelOutline)
    with pytest.raises(NeedsWeights):
        shelf.model(str(folder))


def test_a_folder_that_is_only_read_keeps_nothing(tmp_path):
    RunFolder(tmp_path / "run").once("known", lambda: 1)
    reader = ReadOnlyFolder(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    assert (reader.once("known", lambda: 2), reader.once("new", lambda: 3)) == (1, 3)
    assert sorted(tmp_path.rglob("*")) == before
