"""Data sets of the hub, downloaded from a stand-in of it on this machine: announced, interrupted, of one commit, offline."""

from pathlib import Path

import datasets
import pytest
from huggingface_hub import HfFileSystem
from tenacity import wait_none

from fitprune.errors import FitPruneError
from harness.__main__ import main
from harness.tasks import hub
from harness.tasks.build import build_task
from harness.tasks.isolation import lmms_eval_evaluator
from harness.tasks.preflight import check_data
from tests.support.evaluating import evaluate_cell
from tests.support.hub import COMMIT, stand_in
from tests.support.tiny_llava import scripted, write_suites

POPE, GQA = "lmms-lab-encoder/POPE", "lmms-lab-encoder/GQA"


def upload(source: Path, folder: Path, **configurations: str) -> list[Path]:
    """A data set as people push it: parquet shards that say which columns are images, and a card with the configurations."""
    card, files = ["---", "configs:"], []
    for name, place in configurations.items():
        (file,) = (source / place).glob("*.parquet")
        made = datasets.Dataset.from_parquet(str(file), cache_dir=str(folder / "cache"))
        made = made.cast_column("image", datasets.Image()) if "image" in made.column_names else made
        (folder / name).mkdir(parents=True)
        for number in range(2):
            path = folder / name / f"{file.stem}-{number:05d}-of-00002.parquet"
            made.shard(2, number, contiguous=True).to_parquet(str(path))
            files.append(path)
        card += [f"- config_name: {name}", "  data_files:", f"  - split: {file.stem}", f"    path: {name}/{file.stem}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return files


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return write_suites(tmp_path_factory.mktemp("d"))


@pytest.fixture
def server(tmp_path, local, monkeypatch):
    lmms_eval_evaluator()
    from lmms_eval.api import task

    upload(local, tmp_path / "repositories" / POPE, default="pope/default")
    names = {name: f"gqa/{name}" for name in ("testdev_balanced_instructions", "testdev_balanced_images")}
    upload(local, tmp_path / "repositories" / GQA, **names)
    monkeypatch.setattr(hub, "_known", {})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.delenv("LMMS_EVAL_DATASETS_CACHE", raising=False)
    monkeypatch.setattr(task, "_resolve_hf_datasets_cache_dir", lambda: str(tmp_path / "datasets"))
    monkeypatch.setattr(task.ConfigurableTask.download.retry, "wait", wait_none())
    with stand_in(tmp_path / "repositories") as standing:
        reach(monkeypatch, standing.url)
        yield standing


def reach(monkeypatch, url, offline=False):
    """Have huggingface_hub and datasets ask this hub; offline none."""
    HfFileSystem.clear_instance_cache()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", url)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + template)


def test_a_run_without_the_data_says_so_in_one_line_and_asks_no_hub(server, monkeypatch):
    for suite, repository in (("pope", POPE), ("gqa", GQA)):
        for refuse in (lambda suite=suite: check_data(suite, "hub"), lambda suite=suite: build_task(suite, "hub")):
            with pytest.raises(FitPruneError) as error:
                refuse()
            assert str(error.value) == (
                f"the data of suite '{suite}' ({repository}) are not on this machine: "
                f"fitprune download --data {suite} fetches them; "
                "or take --data mini, or --data DIR with its parquet files"
            )
    assert server.ranges == []


@pytest.mark.exhaustive
def test_downloaded_data_are_announced_and_read_offline_as_they_were_pushed(server, local, monkeypatch, capsys):
    assert main(["download", "--data", "gqa,pope"]) == 0
    said = capsys.readouterr().out.splitlines()
    files = {suite: (server.folder / repository).glob("*/*.parquet") for suite, repository in (("gqa", GQA), ("pope", POPE))}
    sizes = {suite: sum(path.stat().st_size for path in there) / 1e6 for suite, there in files.items()}
    assert said == [
        f"gqa: {GQA} at {COMMIT[:8]}, {sizes['gqa']:,.1f} MB",
        "gqa: 6 questions are on this machine",
        f"pope: {POPE} at {COMMIT[:8]}, {sizes['pope']:,.1f} MB",
        "pope: 12 questions are on this machine",
    ]
    monkeypatch.setattr(hub, "_known", {})
    reach(monkeypatch, "http://127.0.0.1:1", offline=True)
    for suite, repository in (("gqa", GQA), ("pope", POPE)):
        check_data(suite, "hub")
        task = build_task(suite, "hub")
        assert task.data_digest.startswith(f"{COMMIT}:{repository}:")
        here = build_task(suite, str(local))
        assert [doc["question"] for doc in task.eval_docs_no_media] == [doc["question"] for doc in here.eval_docs_no_media]
        shown = [[task.doc_to_visual(doc)[0].tobytes() for doc in one.eval_docs] for one in (task, here)]
        assert shown[0] == shown[1]
    ours, theirs = (evaluate_cell(scripted({"": "yes"}), None, "pope", data=data, limit=6) for data in (str(local), "hub"))
    assert [(one.doc_id, one.score, one.image) for one in ours.answers] == [
        (one.doc_id, one.score, one.image) for one in theirs.answers
    ]


def test_an_interrupted_download_is_one_line_and_goes_on_with_the_file_that_it_broke_off_in(server, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    first, second = sorted((server.folder / POPE).glob("*/*.parquet"))
    server.left = first.stat().st_size + 400
    assert main(["download", "--data", "pope"]) == 2
    assert f"error: task 'pope': cannot download {POPE} (" in capsys.readouterr().err.splitlines()[-1]
    for refuse in (check_data, build_task):
        with pytest.raises(FitPruneError, match="are not on this machine"):
            refuse("pope", "hub")
    asked, server.left = len(server.ranges), None
    assert main(["download", "--data", "pope"]) == 0
    assert "12 questions are on this machine" in capsys.readouterr().out
    assert {name for name, _ in server.ranges[asked:]} == {second.name}
    check_data("pope", "hub")
    served = len(server.ranges)
    assert main(["download", "--data", "pope"]) == 0  # nothing is fetched again
    assert len(server.ranges) == served


def test_of_a_suite_without_a_data_set_on_the_hub_it_is_one_line(server, capsys):
    assert main(["download", "--data", "nothing-like-it"]) == 2
    assert "unknown suite 'nothing-like-it'" in capsys.readouterr().err
    assert main(["download"]) == 2
