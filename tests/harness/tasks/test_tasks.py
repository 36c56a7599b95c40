"""lmms-eval's own tasks on local data, and the data's pre-flight."""

import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import DatasetDict
from PIL import Image
from tenacity import wait_none

from fitprune.errors import FitPruneError
from harness.tasks.build import build_task, task_manager, tasks_reading
from harness.tasks.isolation import lmms_eval_evaluator
from harness.tasks.preflight import check_data
from harness.tasks.specs import SUITES
from tests.support.tiny_llava import people, picture, write, write_suites

pytestmark = pytest.mark.releases
EVERYDAY = [name for name, spec in SUITES.items() if spec.everyday]
"""The suites that `write_suites` writes; test_shipped_suites.py has the others."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_suites(tmp_path_factory.mktemp("data")))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_suites(tmp_path)


def refused(suite: str, data: object) -> str:
    with pytest.raises(FitPruneError) as error:
        check_data(suite, str(data))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suite", EVERYDAY)
def test_a_task_is_the_original_but_for_its_data(suite: str, shared: str) -> None:
    task = build_task(suite, shared)
    original = task_manager(suite)._get_config(SUITES[suite].task)
    assert task.config.task == SUITES[suite].task
    # The functions are loaded afresh for every task object, from the same file: compare what they are compiled to.
    assert task.config.doc_to_text.__code__ == original["doc_to_text"].__code__
    assert [metric["metric"] for metric in task.config.metric_list] == [m["metric"] for m in original["metric_list"]]
    assert SUITES[suite].metric.name in task._metric_fn_list
    for name, value in original["generation_kwargs"].items():
        assert task.config.generation_kwargs[name] == value


def test_prompts_are_those_of_the_tasks(shared: str) -> None:
    short = "\nAnswer the question using a single word or phrase."
    expected = {
        "gqa": f"what color 0 ?{short}",
        "vqav2": f"what shape 0 ?{short}",
        "textvqa": f"What is written 0 ?{short}",
        "pope": f"Is there a red square 0 ?{short}",
        "mme": f"Is there a red existence 0 ?{short}",
        "scienceqa": "what color 0 ?\nA. red\nB. blue\nC. green\n"
        "Answer with the option's letter from the given choices directly.",
    }
    for suite, prompt in expected.items():
        task = build_task(suite, shared)
        assert task.doc_to_text(task.eval_docs[0]) == prompt


def test_gqa_questions_get_their_own_image(shared: str) -> None:
    task = build_task("gqa", shared)
    for doc in task.eval_docs:
        expected = Image.open(io.BytesIO(picture(int(doc["imageId"][1:]))["bytes"])).convert("RGB")
        assert task.doc_to_visual(doc)[0].tobytes() == expected.tobytes()
    assert "image" not in task.eval_docs_no_media.column_names


def test_images_are_known_without_the_metadata_of_datasets(shared: str) -> None:
    file = Path(shared) / "pope/default/test.parquet"
    assert not pq.read_schema(file).metadata
    assert isinstance(build_task("pope", shared).eval_docs[0]["image"], Image.Image)


def test_changed_content_is_read_again(data: Path) -> None:
    before = build_task("vqav2", str(data))
    rows = [{"question": "new ?", "question_id": 0, "image": picture(0), "answers": people("red")}]
    write(data, "vqav2_val/default/validation", rows)
    after = build_task("vqav2", str(data))
    assert [doc["question"] for doc in after.eval_docs_no_media] == ["new ?"]
    assert before.data_digest != after.data_digest


def test_the_digest_is_of_the_files_content(data: Path) -> None:
    content = (data / "pope/default/test.parquet").read_bytes()
    expected = hashlib.sha256(hashlib.sha256(content).digest()).hexdigest()
    assert build_task("pope", str(data)).data_digest == expected


def test_shards_are_read_in_order(data: Path) -> None:
    file = data / "pope/default/test.parquet"
    table = pq.read_table(file)
    file.unlink()
    pq.write_table(table.slice(0, 5), file.with_name("test-00000-of-00002.parquet"))
    pq.write_table(table.slice(5), file.with_name("test-00001-of-00002.parquet"))
    assert build_task("pope", str(data)).eval_docs_no_media["question"][:] == table["question"].to_pylist()


@pytest.mark.parametrize("suite", EVERYDAY)
def test_good_data_pass(suite: str, shared: str) -> None:
    check_data(suite, shared)


@pytest.mark.parametrize("suite", EVERYDAY)
def test_a_missing_file_is_named(suite: str, tmp_path: Path) -> None:
    assert f"{tmp_path}/{SUITES[suite].task}" in refused(suite, tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "nowhere' does not exist" in refused("gqa", tmp_path / "nowhere")


def test_an_unknown_suite_gives_the_nearest() -> None:
    with pytest.raises(FitPruneError, match="textvqa"):
        build_task("textqva")


@pytest.mark.parametrize("keep", [0, 3, 500, -1])
def test_a_truncated_file_is_refused(data: Path, keep: int) -> None:
    file = data / "gqa/testdev_balanced_images/testdev.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    assert str(file) in refused("gqa", data)


def test_missing_columns_are_named_with_their_file(data: Path) -> None:
    file = data / "mme/default/test.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["category", "image"]), file)
    message = refused("mme", data)
    assert f"{file}: column category, image is missing" in message


def test_a_file_without_rows_is_refused(data: Path) -> None:
    file = data / "pope/default/test.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    assert "holds no rows" in refused("pope", data)


def test_vqav2_answers_must_have_ids_that_differ(data: Path) -> None:
    """lmms-eval tells annotators apart by all they say; without ids, equal answers vanish and everything scores 0."""
    same = [{"answer": "red", "answer_id": 1}] * 10
    row = {"question": "?", "question_id": 0, "image": picture(0), "answers": same}
    write(data, "vqav2_val/default/validation", [row])
    assert "answer_id" in refused("vqav2", data)
    write(data, "vqav2_val/default/validation", [row | {"answers": [{"answer": "red"}] * 10}])
    assert "answers lack answer_id" in refused("vqav2", data)
    with pytest.raises(FitPruneError, match="answer_id"):
        build_task("vqav2", str(data))


def test_mme_questions_must_be_pairs(data: Path) -> None:
    file = data / "mme/default/test.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    assert "pair" in refused("mme", data)


def test_pope_answers_must_be_yes_or_no(data: Path) -> None:
    row = {"question": "?", "answer": "maybe", "question_id": "0", "image": picture(0)}
    write(data, "pope/default/test", [row])
    assert "'maybe'" in refused("pope", data)


def test_gqa_questions_must_have_an_image(data: Path) -> None:
    write(data, "gqa/testdev_balanced_images/testdev", [{"id": "i0", "image": picture(0)}])
    assert "4 questions name an imageId without an image, e.g. i1" in refused("gqa", data)


def test_scienceqa_answers_must_be_among_the_choices(data: Path) -> None:
    row = {"question": "?", "choices": ["a"], "answer": 1, "hint": "", "image": picture(0)}
    write(data, "scienceqa_img/ScienceQA-IMG/test", [row], answer=pa.int8())
    assert "column answer, row 0: 1 is not the index of one of 1 choices" in refused("scienceqa", data)


def test_textvqa_questions_must_have_answers(data: Path) -> None:
    row = {"question": "?", "question_id": 0, "image": picture(0), "answers": []}
    write(data, "textvqa_val/default/validation", [row], answers=pa.list_(pa.string()))
    assert "has no answers" in refused("textvqa", data)


def test_the_other_tasks_on_a_data_set_read_its_folder(data: Path) -> None:
    rows = pq.read_table(data / "pope/default/test.parquet").slice(0, 4).to_pylist()
    write(data, "pope/Full/adversarial", rows)
    manager = task_manager("pope")
    with tasks_reading(str(data)):
        task = manager.load_task_or_group(["pope_adv"])["pope_adv"]
    assert task.config.task == "pope_adv"
    assert len(task.eval_docs) == 4


def test_hub_tasks_download_as_always(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    local = build_task("pope", shared)
    asked: list = []

    def load_dataset(path: str, name: str | None, **_: object) -> DatasetDict:
        asked.append((path, name))
        return DatasetDict({"test": local.eval_docs})

    monkeypatch.setattr("harness.tasks.hub._known", {"lmms-lab-encoder/POPE": "c0ffee"})
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    whole, part = build_task("pope", "hub", fetch=True), build_task("pope", "hub", limit=6, fetch=True)
    assert asked == [("lmms-lab-encoder/POPE", None)] * 2
    assert len(whole.eval_docs) == 12
    assert list(whole.rows) == list(range(12))
    assert part.rows == build_task("pope", shared, limit=6).rows
    assert "image" not in part.eval_docs_no_media.column_names
    assert whole.data_digest == "c0ffee:lmms-lab-encoder/POPE:default:test"


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("no\nroute")

    lmms_eval_evaluator()
    from lmms_eval.api.task import ConfigurableTask

    monkeypatch.setattr("harness.tasks.hub._known", {"lmms-lab-encoder/POPE": "c0ffee"})
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr(ConfigurableTask.download.retry, "wait", wait_none())
    with pytest.raises(FitPruneError, match=r"cannot download lmms-lab-encoder/POPE \(ConnectionError: no route\)") as error:
        build_task("pope", "hub", fetch=True)
    assert "\n" not in str(error.value)
