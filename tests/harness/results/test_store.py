"""The results folder: whole files or none, strict JSON, damaged files named."""

import dataclasses
import json
import math
import os
import threading

import pytest

from fitprune.errors import FitPruneError
from harness.results.key import content_key
from harness.results.once import RunFolder
from harness.results.result import Result
from harness.results.store import Store
from tests.support.results import answers, result

pytestmark = pytest.mark.releases
CONTRACT = [
    "schema",
    "model",
    "revision",
    "pruner",
    "params",
    "suite",
    "metric",
    "score",
    "dense_score",
    "drop",
    "drop_ci95",
    "n",
    "flops",
    "dense_flops",
    "reduction",
    "latency_ms",
    "memory_mb",
    "versions",
    "device",
    "seed",
    "date",
]


def test_a_result_comes_back_as_it_was(tmp_path):
    store = Store(tmp_path / "new" / "folder")
    path = store.folder / store.write(result(), answers(), answers(score=0.0))
    (read,), notes = store.read_all()
    assert not notes
    assert dataclasses.replace(read, answers_digest="", key="") == result()
    assert path.name == f"llava-tiny-fastv-0.5-gqa-{content_key(result().to_json())}.json"
    first = store.read_answers(result())[0]
    assert (first["question"], first["score"], first["dense_score"]) == ("é <script>?", 1.0, 0.0)
    assert sorted(p.name for p in store.folder.iterdir()) == sorted([path.name, path.name.replace(".json", ".answers.jsonl")])


def test_the_file_has_the_contracts_keys_in_strict_json(tmp_path):
    path = tmp_path / Store(tmp_path).write(result(drop=math.nan, drop_ci95=(math.nan, math.nan)), answers(score=math.nan))
    text = path.read_text()
    assert set(CONTRACT) <= json.loads(text).keys()
    assert "NaN" not in text
    assert json.loads(text)["drop_ci95"] == [None, None]
    (read,), notes = Store(tmp_path).read_all()
    assert math.isnan(read.drop)
    assert not notes
    assert Store(tmp_path).read_answers(read)[0]["score"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "other"},
        {"params": {"k": 3}},
        {"suite": "pope"},
        {"data_digest": "other"},
        {"limit": 8},
        {"task_code": "other"},
        {"generation": {"max_new_tokens": 4}},
        {"weights": "other"},
        {"code": "other"},
        {"device": "NVIDIA H100"},
        {"versions": {"torch": "9"}},
        {"metric": "f1"},
        {"pruner": "vtw"},
    ],
)
def test_different_cells_have_different_files(tmp_path, change):
    store = Store(tmp_path)
    assert store.write(result(), answers()) != store.write(result(**change), answers())
    assert len(store.read_all().results) == 2


def test_the_same_cell_has_one_file_whenever_it_ran(tmp_path):
    store = Store(tmp_path)
    first = result(params={"drop": [1], "provenance": {"date": "today"}})
    again = result(params={"drop": [1], "provenance": {"date": "tomorrow"}}, date="2026-02-01T00:00:00+00:00", score=81.0)
    assert store.write(first, answers()) == store.write(again, answers())
    assert [read.score for read in store.read_all().results] == [81.0]


def test_a_models_path_makes_no_folders(tmp_path):
    path = tmp_path / Store(tmp_path).write(result(model="../../home/me/my model"), answers())
    assert path.parent == tmp_path
    assert path.name.startswith("my_model-fastv-0.5-gqa-")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "damaged"),
        ('{"schema": 2, "model": "x', "damaged"),
        ("[]", "no JSON object"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 2}', "lacks date"),
        ("\udcff", "damaged"),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_stays(tmp_path, text, said):
    store = Store(tmp_path)
    store.write(result(), answers())
    (tmp_path / "broken.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    results, notes = store.read_all()
    assert [read.score for read in results] == [80.0]
    assert len(notes) == 1
    assert "broken.json" in notes[0]
    assert said in notes[0]
    assert "\n" not in notes[0]


@pytest.mark.parametrize(
    "change",
    [{"score": "high"}, {"drop_ci95": [1]}, {"params": 3}, {"n": "many"}, {"latency_ms": 3}, {"score": True}, {"flops": []}],
)
def test_a_wrong_value_is_noticed(change):
    with pytest.raises(FitPruneError, match=next(iter(change))):
        Result.from_json(result().to_json() | change)


def test_keys_of_a_newer_version_do_no_harm():
    assert Result.from_json(result().to_json() | {"energy_j": 3}) == result()


def test_lost_answers_are_an_error_in_one_line(tmp_path):
    with pytest.raises(FitPruneError, match=r"cannot read the answers in .*No such file"):
        Store(tmp_path).read_answers(result())


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Store(tmp_path).write(result(), answers())
    assert list(tmp_path.iterdir()) == []


def test_checking_leaves_nothing_behind(tmp_path):
    Store(tmp_path / "a" / "b").check_writable()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_under_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "results"):
        with pytest.raises(FitPruneError, match="not a folder"):
            Store(folder).check_writable()


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(FitPruneError, match=r"cannot be written \(Permission denied\); give another with --results"):
        Store(tmp_path).check_writable()


def test_once_computes_once_for_many_askers(tmp_path):
    calls, got = [], []

    def compute():
        calls.append(1)
        return {"score": math.nan}

    def ask():
        got.append(RunFolder(tmp_path).once("dense", compute))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert got == [{"score": None}] * 8


def test_once_forgets_an_error(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(ZeroDivisionError):
        folder.once("x", lambda: 1 / 0)
    assert folder.once("x", lambda: 3) == 3
