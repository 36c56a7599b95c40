"""Pictures that stay in their files: which are read, when, and what is noticed of a file that changes."""

import gc
import io
import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fitprune.errors import FitPruneError
from harness.answering.batching import image_hash
from harness.models import digests
from harness.tasks import preflight, reading, stored
from harness.tasks.build import build_task
from harness.tasks.pictures import seen
from harness.tasks.preflight import check_data
from tests.support.evaluating import evaluate_cell
from tests.support.tiny_llava import picture, scripted, write, write_suites

ROWS = 40


@pytest.fixture
def read(monkeypatch):
    """The places that were read so far."""
    places, plain = [], stored._read
    monkeypatch.setattr(stored, "_read", lambda place: places.append(place) or plain(place))
    return places


@pytest.fixture
def batches(monkeypatch):
    """How many rows of pictures were read of the files, each time."""
    counted, plain = [], stored._batches

    def counting(*given):
        for batch in plain(*given):
            counted.append(len(batch))
            yield batch

    monkeypatch.setattr(stored, "_batches", counting)
    stored._batch.cache_clear()
    return counted


def pope(folder, rows=ROWS, group=5, **options):
    """POPE's questions, each with a picture of its own, in short row groups."""
    made = [
        {
            "question": f"Is there a red square {row} ?",
            "answer": "yes",
            "question_id": str(row),
            "image_source": f"i{row}",
            "category": "random",
            "image": picture(row),
        }
        for row in range(rows)
    ]
    path = write(folder, "pope/default/test", made)
    pq.write_table(pq.read_table(path), path, row_group_size=group, **options)
    return path


def pixels(task):
    return [task.eval_docs[row]["image"].tobytes() for row in range(len(task.eval_docs))]


def test_a_run_of_eight_questions_reads_eight_pictures_of_at_most_eight_row_groups(tmp_path, read, batches):
    pope(tmp_path)
    answers = evaluate_cell(scripted({"": "yes"}), None, "pope", data=str(tmp_path), limit=8)
    assert len(answers.answers) == 8
    assert len(set(read)) == len(read) == 8
    assert sum(batches) <= 8 * 5


@pytest.mark.parametrize("suite", ["gqa", "vqav2", "pope", "mme"])
def test_labels_are_checked_and_questions_opened_and_limited_without_a_picture(suite, tmp_path, read, batches):
    data = str(write_suites(tmp_path))
    check_data(suite, data)
    build_task(suite, data)
    build_task(suite, data, limit=2)
    assert (read, batches) == ([], [])


def test_questions_are_read_once_for_each_state_of_their_file(tmp_path, monkeypatch):
    path, opened, plain = pope(tmp_path), [], pq.ParquetFile.read
    monkeypatch.setattr(pq.ParquetFile, "read", lambda file, **asked: opened.append(asked) or plain(file, **asked))
    check_data("pope", str(tmp_path))
    tasks = [build_task("pope", str(tmp_path)), build_task("pope", str(tmp_path), limit=3)]
    assert len(opened) == 1
    assert "image" not in opened[0]["columns"]
    pq.write_table(pq.read_table(path).slice(0, 7), path)
    assert len(build_task("pope", str(tmp_path)).rows) == 7
    assert [len(task.rows) for task in tasks] == [ROWS, 3]


@pytest.mark.parametrize("group", [1, 7, ROWS])
@pytest.mark.parametrize("size", [1, 1 << 12, 1 << 22])
def test_each_picture_is_found_whatever_the_row_groups_and_what_is_read_at_a_time(tmp_path, monkeypatch, group, size):
    monkeypatch.setattr(stored, "BATCH_BYTES", size)
    pope(tmp_path, group=group)
    expected = [shown(row) for row in range(ROWS)]
    assert pixels(build_task("pope", str(tmp_path))) == expected


def shown(row):
    return Image.open(io.BytesIO(picture(row)["bytes"])).tobytes()


def test_pictures_of_parts_are_found_in_their_part(tmp_path):
    path = pope(tmp_path)
    table = pq.read_table(path)
    path.unlink()
    for number, start in enumerate((0, 13, 26)):
        part = path.with_name(f"test-{number:05d}-of-00003.parquet")
        pq.write_table(table.slice(start, 13 + (number == 2)), part)
    assert pixels(build_task("pope", str(tmp_path))) == [shown(row) for row in range(ROWS)]


def test_the_hashes_of_many_pictures_are_remembered(tmp_path, monkeypatch, read):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(reading, "MANY", 10)
    table = pq.read_table(pope(tmp_path / "data")).drop_columns(["image_source"])
    pq.write_table(table, tmp_path / "data/pope/default/test.parquet")
    first = build_task("pope", str(tmp_path / "data"), limit=5).rows
    assert len(read) == ROWS
    assert build_task("pope", str(tmp_path / "data"), limit=5).rows == first
    assert len(read) == ROWS
    monkeypatch.setattr(reading, "MANY", 1000)
    assert build_task("pope", str(tmp_path / "data"), limit=5).rows == first


def test_a_file_that_changes_under_a_run_is_noticed(tmp_path):
    path = pope(tmp_path)
    task = build_task("pope", str(tmp_path))
    stored._batch.cache_clear()
    pope(tmp_path, rows=12)
    with pytest.raises(FitPruneError, match=rf"^{path} changed while the run was going on; run it again$"):
        task.eval_docs[3]
    model = scripted({"": "yes"})
    with pytest.raises(FitPruneError, match="changed while the run was going on"):  # no broken picture
        evaluate_cell(model, None, "pope", data=str(tmp_path), task=task, allow_broken_images=True)


@pytest.fixture
def long(tmp_path, monkeypatch):
    """A file whose one row group counts as long, and the home that its pictures may be written to."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(stored, "LONG_BYTES", 1000)
    monkeypatch.setattr(stored, "BATCH_BYTES", 500)
    return pope(tmp_path / "data", group=ROWS)


def test_pictures_of_long_row_groups_are_written_once_in_short_ones(long, tmp_path, capfd):
    check_data("pope", str(tmp_path / "data"))
    assert re.fullmatch(rf"{long}: its row groups are long; its pictures .+ once, to .+ \(0.0 GB\)\n", capfd.readouterr().err)
    before = build_task("pope", str(tmp_path / "data"))
    assert pixels(before) == [shown(row) for row in range(ROWS)]
    (made,) = (tmp_path / "home/fitprune/pictures").glob("*.parquet")
    footer = pq.read_metadata(made)
    assert footer.num_row_groups > 10
    assert footer.num_rows == ROWS
    written = made.stat().st_mtime_ns
    os.utime(long, ns=(1, 1))  # another state, the same content
    again = build_task("pope", str(tmp_path / "data"))
    assert pixels(again) == pixels(before)
    assert made.stat().st_mtime_ns == written
    assert again.data_digest == before.data_digest


def test_where_they_cannot_be_written_it_is_one_line(long, tmp_path, monkeypatch):
    (tmp_path / "home").touch()
    with pytest.raises(
        FitPruneError, match=r"fitprune/pictures cannot be written \(.+\); write .* with shorter row groups"
    ) as error:
        check_data("pope", str(tmp_path / "data"))
    assert "\n" not in str(error.value)
    (tmp_path / "home").unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(FitPruneError, match=r"has no room for the 0.0 GB of pictures of .*test.parquet; write"):
        check_data("pope", str(tmp_path / "data"))


def test_lists_of_pictures_and_columns_that_a_question_does_not_use_stay_in_their_files(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    lists = [[picture(1), picture(2)], [], [picture(3)]]
    table = pa.table(
        {"n": [0, 1, 2], "images": pa.array(lists, pa.list_(kind)), "image_2": pa.array([None, picture(4), None], kind)}
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    images, beside = stored.places([path], "images", several=True)
    assert [[stored.encoded(one) for one in row] for row in images.to_pylist()] == [
        [one["bytes"] for one in row] for row in lists
    ]
    single, _ = stored.places([path], "image_2")
    assert [one and stored.encoded(one) for one in single.to_pylist()] == [None, picture(4)["bytes"], None]
    assert beside == []


def test_a_digest_that_takes_long_says_how_far_it_is(tmp_path, monkeypatch, capfd):
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(3 << 20))
    monkeypatch.setattr(digests, "PATIENCE", -1)
    digests._read(path)
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1] == f"{path}: 0.0 of 0.0 GB read for its digest"
    assert len(lines) > 3


def test_the_requests_of_a_task_share_their_options_and_leave_the_tasks_own_alone(tmp_path, monkeypatch):
    pope(tmp_path)
    task = build_task("pope", str(tmp_path))
    given, collecting, plain = dict(task.config.generation_kwargs), [], task.construct_requests
    monkeypatch.setattr(task, "construct_requests", lambda **asked: collecting.append(gc.isenabled()) or plain(**asked))
    task.build_all_requests()
    assert set(collecting) == {False}
    assert gc.isenabled()
    options = [request.args[1] for request in task.instances]
    assert len(options) == ROWS
    assert options[0] == given
    assert all(one is options[0] for one in options)
    assert type(task.config.generation_kwargs) is dict


def test_many_questions_are_written_down_once_and_mapped(tmp_path, monkeypatch):
    """Processes share them; a file that changes is read anew, and a home that cannot be written changes nothing."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(digests, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(preflight, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(preflight, "MANY", 1)
    path = pope(tmp_path / "data")
    plain = pq.read_table(path, columns=["question", "answer", "category"]).to_pylist()
    before = pa.total_allocated_bytes()
    table, _ = preflight.read_questions([path])
    assert pa.total_allocated_bytes() - before < table.nbytes
    assert [{name: row[name] for name in plain[0]} for row in table.to_pylist()] == plain
    (written,) = (tmp_path / "home/questions").iterdir()
    preflight._read_questions.cache_clear()
    monkeypatch.setattr(preflight, "_read_placed", None)
    again, _ = preflight.read_questions([path])
    assert again.equals(table)
    task = build_task("pope", str(tmp_path / "data"))
    assert image_hash([seen(task.dataset["test"][3]["image"])]) == image_hash([Image.open(io.BytesIO(picture(3)["bytes"]))])
    monkeypatch.undo()
    monkeypatch.setattr(preflight, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(preflight, "MANY", 1)
    pope(tmp_path / "data", rows=ROWS + 1)
    assert len(preflight.read_questions([path])[0]) == ROWS + 1
    assert written.is_file()
    (tmp_path / "file").touch()
    monkeypatch.setattr(preflight, "home", lambda: tmp_path / "file")
    preflight._read_questions.cache_clear()
    assert len(preflight.read_questions([path])[0]) == ROWS + 1


def test_rows_that_are_asked_in_turn_are_those_that_are_asked_by_their_number(tmp_path):
    pope(tmp_path)
    docs = build_task("pope", str(tmp_path), limit=7).eval_docs_no_media
    assert list(docs) == [docs[place] for place in range(7)]
    assert "image" not in docs.column_names
