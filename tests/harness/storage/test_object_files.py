"""Results in an object store, here fsspec's `memory://`: what a folder can, without rename, append and lock."""

import threading
import time

import pytest

from fitprune.errors import FitPruneError
from harness.cells import CellSettings
from harness.results.once import RunFolder
from harness.results.refusals import read_refusals
from harness.results.store import Store
from harness.storage import locks, object_files
from harness.storage.places import files_at
from harness.telling import telling
from tests.support.cluster_runs import alone
from tests.support.journaled_bench import CELLS, JournaledBench
from tests.support.results import answers, result


@pytest.fixture
def url(tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setenv("JOURNALED_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(object_files, "_POLL", 0.02)
    yield "memory://bucket/results"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_the_same_files_as_in_a_folder(url, tmp_path):
    """Of cells that were measured through journals, locks and dense answers that are shared."""
    expected = alone(tmp_path / "alone")
    store = Store(url)
    bench = JournaledBench(CellSettings(), RunFolder(tmp_path / "run"), store)
    for cell in CELLS:
        with bench.measuring(cell) as measured:
            assert not measured.cached
            store.write(measured.result, measured.answers, None if cell.is_dense else measured.dense)
    results, notes = store.read_all()
    assert not notes
    assert {f"results/{file}" for file in store.files.names()} == {name for name in expected if name.count("/") == 1}
    for found in results:
        text = store.files.read(f"{found.name}.answers.jsonl")
        assert text.rstrip("\n") == expected[f"results/{found.name}.answers.jsonl"]
    assert store.files.names("journals") == store.files.names("locks") == []
    assert {name for name in expected if name.startswith("results/shared/")} == {
        f"results/shared/{name}" for name in store.files.names("shared")
    }
    with JournaledBench(CellSettings(), RunFolder(tmp_path / "again"), Store(url)).measuring(CELLS[1]) as found:
        assert found.cached


def test_a_journal_goes_on_and_loses_what_cannot_be_read(url):
    journal = Store(url).journal("k")
    journal.append({"keys": [1]})
    journal.append({"keys": [2]})
    journal.files.append("journals/k.jsonl", b'{"keys": [3')
    assert Store(url).begun() == {"k"}
    again = Store(url).journal("k")
    assert again.entries == [{"keys": [1]}, {"keys": [2]}]
    again.append({"keys": [4]})
    again.part(1).append({"keys": [5]})
    assert Store(url).journal("k").entries == [{"keys": [1]}, {"keys": [2]}, {"keys": [4]}]
    again.remove()
    assert Store(url).journal("k").entries == Store(url).journal("k-1").entries == []


def test_two_who_append_at_once_overwrite_nothing(url):
    first, second = files_at(url), files_at(url)
    first.append("a.jsonl", b"1\n")
    second.append("a.jsonl", b"2\n")
    first.append("a.jsonl", b"3\n")
    assert first.read_log("a.jsonl") == b"1\n2\n3\n"


def test_a_condition_that_failed_is_known_whatever_the_store_calls_it(url, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    files, plain = files_at(url), MemoryFileSystem.pipe_file
    files.write("locks/k.lock", ["{}"])

    def failed(self, path, value, mode="overwrite", **given):
        if mode == "create":
            raise OSError(22, "At least one of the pre-conditions you specified did not hold")
        return plain(self, path, value, mode, **given)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", failed)
    assert files.attempt("locks/k.lock") is None
    with pytest.raises(OSError, match="pre-conditions"):
        files.attempt("locks/other.lock")


def test_one_at_a_time_and_the_holder_is_named(url, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    inside, lines, order = threading.Event(), [], []

    def hold():
        with files_at(url).lock("locks/k.lock", "a cell"):
            inside.set()
            time.sleep(0.5)
            order.append("first")

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    with telling(lines.append), files_at(url).lock("locks/k.lock", "the same"):
        order.append("second")
    holder.join()
    assert order == ["first", "second"]
    assert len(lines) == 1
    assert lines[0].startswith("waiting for process ")
    assert files_at(url).names("locks") == []


def test_a_lock_without_a_sign_of_life_is_broken_and_one_with_is_not(url, monkeypatch):
    monkeypatch.setattr(object_files, "LEFT", 0.3)
    monkeypatch.setattr(object_files, "ALIVE", 0.05)
    files = files_at(url)
    files.write("locks/dead.lock", ['{"pid": 1, "host": "gone", "beat": 0}'])
    release = files_at(url).attempt("locks/alive.lock")
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert files.attempt("locks/alive.lock") is None
        time.sleep(0.02)
    release()
    files.attempt("locks/dead.lock")
    time.sleep(0.4)
    assert files.attempt("locks/dead.lock") is None  # breaks it
    assert files.attempt("locks/dead.lock") is not None


def test_a_damaged_result_is_put_aside(url):
    store = Store(url)
    store.write(result(), answers())
    name = result().name
    store.files.write(f"{name}.json", ["{"])
    with pytest.raises(FitPruneError, match="is damaged and left out"):
        store.find(name)
    store.set_aside(name)
    assert store.files.names() == [f"{name}.answers.jsonl.damaged", f"{name}.json.damaged"]
    assert read_refusals(url) == ([], [])


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nothing://bucket", "results at nothing://bucket: Protocol not known"),
        ("memory://full", r"memory://full cannot be written"),
    ],
)
def test_a_url_that_cannot_be_written_is_refused_in_one_line(place, said, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(*given, **named):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(FitPruneError, match=said) as refused:
        Store(place).check_writable()
    assert "\n" not in str(refused.value)
