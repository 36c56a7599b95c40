"""Data sets of the hub at one commit: looked up once, loaded at it, in the key; offline what the cache holds. No hub is here:
its answers are made up, its cache is laid out as huggingface_hub and datasets lay it out.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from datasets.arrow_writer import ArrowWriter
from huggingface_hub import HfApi
from tenacity import wait_none

from fitprune.errors import FitPruneError
from harness.answering.evaluate import conditions
from harness.cells import CellSettings
from harness.plugin.workers import Worker, hand_over
from harness.tasks import hub
from harness.tasks.build import build_task
from harness.tasks.isolation import lmms_eval_evaluator
from harness.tasks.preflight import check_data
from tests.support.tiny_llava import write_suites

OLD, NEW = "0123456789" * 4, "abcdef0123" * 4
POPE, GQA = "lmms-lab-encoder/POPE", "lmms-lab-encoder/GQA"


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Empty caches, and nothing known."""
    monkeypatch.setattr(hub, "_known", {})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.delenv("LMMS_EVAL_DATASETS_CACHE", raising=False)
    lmms_eval_evaluator()
    from lmms_eval.api import task

    monkeypatch.setattr(task, "_resolve_hf_datasets_cache_dir", lambda: str(tmp_path / "datasets"))
    monkeypatch.setattr(task.ConfigurableTask.download.retry, "wait", wait_none())
    return tmp_path


@pytest.fixture
def online(monkeypatch):
    """A hub whose `main` is at NEW; the repositories that it was asked for."""
    asked = []

    def dataset_info(self, repository, **_):
        asked.append(repository)
        return SimpleNamespace(sha=NEW)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    return asked


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return str(write_suites(tmp_path_factory.mktemp("d")))


@pytest.fixture
def loaded(monkeypatch, local):
    """What datasets is asked to load: path, configuration, revision."""
    asked = []

    def load_dataset_builder(path, name=None, revision=None, **_):
        asked.append((path, name, revision))
        place = {POPE: "pope/default", GQA: f"gqa/{name}"}[path]
        (file,) = (Path(local) / place).glob("*.parquet")
        made = datasets.Dataset.from_parquet(str(file))
        made = made.cast_column("image", datasets.Image()) if "image" in made.column_names else made
        parts = datasets.DatasetDict({file.stem: made})
        return SimpleNamespace(
            download_and_prepare=lambda **_: None,
            as_dataset=lambda split=None, **_: parts if split is None else parts[split],
            info=made.info,
        )

    monkeypatch.setattr(datasets.load, "load_dataset_builder", load_dataset_builder)
    return asked


def prepared(caches, commit, repository="lmms-lab-encoder___pope", age=0):
    """What datasets leaves in its cache once it has made a data set ready."""
    folder = caches / "datasets" / repository / "default" / "0.0.0" / commit
    folder.mkdir(parents=True)
    features = datasets.Features({name: datasets.Value("string") for name in ("question", "answer", "question_id", "category")})
    with ArrowWriter(path=str(folder / "pope-test.arrow"), features=features) as writer:
        for number in range(6):
            row = {"question": f"{commit[:4]} {number}?", "answer": "yes", "question_id": str(number), "category": "random"}
            writer.write(row)
        count, size = writer.finalize()
    splits = {"test": {"name": "test", "num_bytes": size, "num_examples": count, "dataset_name": "pope"}}
    info = {"features": features.to_dict(), "builder_name": "parquet", "dataset_name": "pope", "config_name": "default"}
    (folder / "dataset_info.json").write_text(json.dumps(info | {"version": {"version_str": "0.0.0"}, "splits": splits}))
    os.utime(folder, (1e9 - age, 1e9 - age))
    return folder


def referenced(caches, commit, repository="datasets--lmms-lab-encoder--POPE"):
    (caches / "hub" / repository / "refs").mkdir(parents=True)
    (caches / "hub" / repository / "refs" / "main").write_text(commit)


def test_the_commit_is_looked_up_once_and_is_in_key_and_cache(online, loaded, caches):
    first, again = build_task("pope", "hub", fetch=True), build_task("pope", "hub", limit=6, fetch=True)
    assert online == [POPE]
    assert loaded == [(POPE, None, NEW)] * 2
    assert first.data_digest == again.data_digest == f"{NEW}:{POPE}:default:test"
    prepared(caches, NEW)
    assert conditions("pope", CellSettings("hub"), "float32")["data_digest"] == first.data_digest  # which the key covers
    assert (caches / "hub/datasets--lmms-lab-encoder--POPE/refs/main").read_text() == NEW


@pytest.mark.exhaustive
def test_what_a_tasks_own_code_loads_beside_it_is_of_the_commit_too(online, loaded):
    task = build_task("gqa", "hub", fetch=True)
    assert loaded == [(GQA, "testdev_balanced_instructions", NEW), (GQA, "testdev_balanced_images", NEW)]
    assert task.data_digest == f"{NEW}:{GQA}:testdev_balanced_instructions:testdev"
    assert datasets.load.load_dataset_builder.__name__ == "load_dataset_builder"


def test_offline_it_is_what_the_cache_holds(caches):
    prepared(caches, OLD)
    referenced(caches, OLD)
    check_data("pope", "hub")
    task = build_task("pope", "hub")
    assert task.data_digest == f"{OLD}:{POPE}:default:test"
    assert task.eval_docs[0]["question"] == "0123 0?"


def test_of_a_cache_without_a_reference_it_is_the_newest_that_was_made_ready(caches):
    prepared(caches, OLD, age=60)
    prepared(caches, NEW)
    assert build_task("pope", "hub").data_digest.startswith(NEW)
    assert build_task("pope", "hub").eval_docs[0]["question"] == "abcd 0?"


def test_what_was_downloaded_is_read_whatever_the_hub_has_by_now_until_it_is_downloaded_again(online, caches):
    prepared(caches, OLD)
    assert hub.commit_of(POPE) == OLD
    hub._known.clear()
    check_data("pope", "hub")
    assert online == []
    assert hub.latest_of(POPE) == NEW
    assert hub.commit_of(POPE) == NEW
    with pytest.raises(FitPruneError, match=f"^the data of suite 'pope' .{POPE}. are not on this machine: fitprune"):
        check_data("pope", "hub")


def test_where_the_hub_does_not_answer_it_is_what_the_cache_holds(caches, monkeypatch):
    def dataset_info(*_, **__):
        raise ConnectionError("no route")

    with pytest.raises(FitPruneError, match=rf"^{POPE} is not in the cache and HF_HUB_OFFLINE is set; take --data mini, or"):
        hub.commit_of(POPE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    with pytest.raises(FitPruneError) as said:
        hub.commit_of(POPE)
    assert str(said.value) == (
        f"{POPE} is not in the cache and the hub cannot be reached (ConnectionError); "
        "take --data mini, or --data DIR with its parquet files"
    )
    referenced(caches, OLD)
    assert hub.commit_of(POPE) == OLD


def test_another_commit_than_the_one_asked_for_is_never_taken_for_it(caches):
    """Offline, datasets takes the newest that it has, whatever revision it is asked for."""
    prepared(caches, OLD, age=60)
    prepared(caches, NEW)
    referenced(caches, OLD)
    said = f"^the newest {POPE} in the cache is of commit {NEW[:8]}, and {OLD[:8]} is asked for; let the hub be reached, or"
    with pytest.raises(FitPruneError, match=said):
        build_task("pope", "hub")


def test_workers_read_what_the_run_was_started_with(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "_known", {POPE: OLD})
    node = SimpleNamespace(workerinput={"workerid": "gw3", "workercount": 4})
    hand_over(node, tmp_path)
    worker = Worker.of(SimpleNamespace(workerinput=json.loads(json.dumps(node.workerinput))))
    monkeypatch.setattr(hub, "_known", {})
    hub.take_commits(worker.commits)
    assert hub.commit_of(POPE) == OLD


@pytest.mark.parametrize(
    ("path", "is_one"), [(POPE, True), ("parquet", False), ("./a/b", False), ("/a", False), ("here/too", False)]
)
def test_what_is_on_the_hub(path, is_one, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here/too").mkdir(parents=True)
    assert hub.is_hub_id(path) is is_one
