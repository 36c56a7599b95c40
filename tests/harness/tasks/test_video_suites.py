"""Suites about videos: data as published, through lmms-eval's own code; what is missing is said in one line."""

import hashlib
import importlib
import json
import os
import random
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fitprune import FitPruneError
from harness.answering import lmms_model
from harness.answering.batching import Finished, Record, keys_of
from harness.answering.evaluate import conditions, evaluate_cell, sample_inputs
from harness.answers import MEAN, RESAMPLED
from harness.cells import CellSettings
from harness.models.loading import load_model
from harness.models.videos import reading
from harness.tasks import videos
from harness.tasks.build import build_task
from harness.tasks.preflight import check_data
from harness.tasks.shipped.videos import MVBENCH
from harness.tasks.specs import SUITES, find_suite
from tests.support.families import save
from tests.support.video_suites import PUBLISHED, VIDEOS, clip, with_cv2

pytest.importorskip("av")
pytestmark = pytest.mark.releases
RIGHT = {
    "videomme": lambda doc: f"({doc['answer']})",
    "mvbench": lambda doc: f"({'ABCDE'[doc['candidates'].index(doc['answer'])]}) {doc['answer']}",
    "nextqa": lambda doc: "ABCDE"[doc["answer"]] + ".",
    "mini-video": lambda doc: f"({'ABCDE'[doc['candidates'].index(doc['answer'])]})",
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(str(save("llava_onevision", tmp_path_factory.mktemp("m"), layers=1)), "cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All three, and the rows of each."""
    folder = tmp_path_factory.mktemp("d")
    return folder, {suite: make(folder) for suite, make in PUBLISHED.items()}


@pytest.fixture(autouse=True)
def opencv(monkeypatch):
    with_cv2(monkeypatch)


@pytest.fixture
def asked(loaded, monkeypatch):
    """Runs a suite with made-up replies to its rows; notes what was generated from."""

    def run(suite, data, reply, **options):
        docs = build_task(suite, str(data), options.get("limit")).eval_docs_no_media
        run.batches = []

        def generate(loaded, pruner, batch, counting):
            run.batches.append(batch)
            texts = [reply(request.key[1], docs[request.key[1]]) for request in batch.requests]
            return Finished(keys_of(batch.requests), texts, [Record(known, 9, 4, 1) for known in batch.images], None, 0.0)

        monkeypatch.setattr(lmms_model, "generate", generate)
        return evaluate_cell(loaded, None, suite, CellSettings(data=str(data), **options))

    return run


def lmms_evals(suite, docs, replies, seed=0):
    """lmms-eval's own functions for these replies: the aggregate, and the value of each question; its guesses seeded as its
    evaluator seeds them."""
    random.seed(seed)
    if suite == "nextqa":
        os.environ.setdefault("HF_HOME", "/nowhere")
        module = importlib.import_module("lmms_eval.tasks.nextqa.utils")
        values = [
            module.nextqa_mc_process_results(doc, [reply])["exact_match"] for doc, reply in zip(docs, replies, strict=True)
        ]
        return 100 * sum(values) / len(values), values
    folder = "mvbench" if suite == "mini-video" else suite
    module = importlib.import_module(f"lmms_eval.tasks.{folder}.utils")
    process, aggregate = getattr(module, f"{folder}_process_results"), getattr(module, f"{folder}_aggregate_results")
    values = [next(iter(process(doc, [reply]).values())) for doc, reply in zip(docs, replies, strict=True)]
    return aggregate(values), [value["score"] for value in values]


REPLIES = {
    "right and wrong ones": lambda suite, place, doc: RIGHT[suite](doc) if place % 3 else "E and nothing else, I would say",
    "in words": lambda suite, place, doc: ["The answer is B", "c", "(a) thing 0", "D. it is", "none"][place % 5],
    "some empty": lambda suite, place, doc: "" if place % 4 == 1 else RIGHT[suite](doc) if place % 2 else "B",
}


@pytest.mark.parametrize("replies", REPLIES)
@pytest.mark.parametrize("suite", PUBLISHED)
def test_its_score_is_lmms_evals_own(suite, replies, data, asked):
    folder, rows = data
    reply = REPLIES[replies]
    answers = asked(suite, folder, lambda place, doc: reply(suite, place, doc), frames=2)
    said = [reply(suite, place, doc) for place, doc in enumerate(rows[suite])]
    expected, values = lmms_evals(suite, rows[suite], said)
    assert answers.score == pytest.approx(expected, abs=1e-9)
    assert [answer.score for answer in answers.answers] == values
    assert [answer.question for answer in answers.answers] == [row["question"] for row in rows[suite]]
    task = build_task(suite, str(folder))
    files = [path for doc in task.eval_docs for path in task.doc_to_visual(doc)]
    assert [answer.image for answer in answers.answers] == [
        hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files
    ]
    counted_all = suite != "mvbench" or "" not in said
    assert answers.statistic == (MEAN if counted_all else RESAMPLED)


def test_the_drawn_suite_is_scored_by_mvbenchs_code(asked):
    docs = build_task("mini-video", "mini", 30).eval_docs_no_media
    reply = lambda place, doc: RIGHT["mini-video"](doc) if place % 3 else "(E)"  # noqa: E731
    answers = asked("mini-video", "mini", reply, limit=30)
    expected, _ = lmms_evals("mini-video", docs, [reply(place, doc) for place, doc in enumerate(docs)])
    assert answers.score == pytest.approx(expected)
    assert 50 < answers.score < 100
    assert len({doc["config"] for doc in docs}) == 4


@pytest.mark.parametrize("suite", PUBLISHED)
def test_questions_and_files_are_those_of_lmms_evals_own_task(suite, data, monkeypatch):
    """Its prompts, and where it would look for the videos if its home were the folder of the data."""
    folder, rows = data
    monkeypatch.setenv("HF_HOME", str(folder))
    task = build_task(suite, str(folder))
    module = importlib.import_module(f"lmms_eval.tasks.{suite}.utils")
    (folder / "mvbench_video").is_symlink() or (folder / "mvbench_video").symlink_to(folder / "mvbench")
    for name, value in (("base_cache_dir", str(folder)), ("cache_dir", str(folder / "nextqa/NExTVideo"))):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)
    for place, row in enumerate(rows[suite]):
        given = {"sub_task": row.get("config"), "post_prompt": "Only give the best option.\n"}
        if suite == "videomme":
            text = module.videomme_doc_to_text(
                row, {"post_prompt": "\nAnswer with the option's letter from the given choices directly."}
            )
            shown = module.videomme_doc_to_visual(row)
        elif suite == "mvbench":
            text, shown = module.mvbench_doc_to_text(row, given), module.mvbench_doc_to_visual(row, given)
        else:
            text, shown = module.nextqa_doc_to_text_mc(row), module.nextqa_doc_to_visual(row)
        doc = task.eval_docs[place]
        assert task.doc_to_text(doc) == text
        (path,) = task.doc_to_visual(doc)
        if row.get("config") != "object_interaction":  # lmms-eval's own look among the archives of 0613 never finds any
            assert os.path.realpath(path) == os.path.realpath(shown[0])
        assert path.is_file()


def test_mvbench_is_its_twenty_tasks():
    from lmms_eval.tasks.mvbench.utils import DATA_LIST

    assert set(MVBENCH) == set(DATA_LIST)
    assert len(MVBENCH) == len(set(MVBENCH)) == 20


def test_a_limit_is_spread_over_tasks_and_videos(data):
    task = build_task("mvbench", str(data[0]), 20)
    assert sorted(doc["config"] for doc in task.eval_docs_no_media) == sorted(MVBENCH)
    assert len({doc["videoID"] for doc in build_task("videomme", str(data[0]), 3).eval_docs_no_media}) == 3


@pytest.mark.parametrize(("frames", "tokens"), [(None, 8 * 9 + 1), (3, 3 * 9 + 1)])
def test_a_model_is_shown_as_many_frames_as_asked_for(loaded, frames, tokens):
    """By default as many as the suite says. LLaVA-OneVision pools a frame's 36 tokens to 9, and has a newline."""
    inputs = next(sample_inputs(loaded, "mini-video", limit=2, batch_size=2, frames=frames))
    assert (inputs["input_ids"] == loaded.config.video_token_id).sum(1).tolist() == [tokens] * 2
    assert inputs["pixel_values_videos"].shape[:2] == (2, frames or 8)


def test_frames_are_part_of_a_cells_conditions_where_videos_are_shown(data):
    known = lambda suite, **more: conditions(suite, CellSettings(limit=2, batch_size=4, **more), "float32")["generation"]  # noqa: E731
    assert known("mini-video") == known("mini-video", frames=8)
    assert known("mini-video")["frames"] == 8
    assert known("mini-video", frames=3)["frames"] == 3
    assert "frames" not in known("gqa")
    assert known("gqa", frames=3) == known("gqa")
    assert [SUITES[suite].frames for suite in PUBLISHED] == [32] * 3


def test_a_video_that_changes_is_other_data(tmp_path):
    PUBLISHED["nextqa"](tmp_path)
    digest = lambda limit=None: build_task("nextqa", str(tmp_path), limit).data_digest  # noqa: E731
    before, few = digest(), digest(1)
    asked_about = build_task("nextqa", str(tmp_path), 1).eval_docs_no_media[0]["video"]
    other = next(4000 + number for number in range(VIDEOS) if 4000 + number != asked_about)
    clip(tmp_path / f"nextqa/NExTVideo/{other}.mp4", number=7)
    assert digest() != before
    assert digest(1) == few  # of which it is no part
    clip(tmp_path / f"nextqa/NExTVideo/{asked_about}.mp4", number=8)
    assert digest(1) != few


def test_videos_are_read_batch_by_batch(data, asked, monkeypatch):
    """When a batch is generated from, at most the next ones are ready: one waits, one may be in the making."""
    from harness.answering import questions

    read, ahead = [], []
    plain = questions.read_video
    monkeypatch.setattr(questions, "read_video", lambda path, frames: read.append(path) or plain(path, frames))

    def reply(place, doc):
        ahead.append(len(read))
        return "A"

    asked("videomme", data[0], reply, batch_size=1, frames=2)
    assert len(read) == 9
    assert all(there <= number + 1 + 1 + 1 for number, there in enumerate(ahead)), ahead


def test_a_broken_video_ends_the_run_with_its_row_or_counts_as_wrong(tmp_path, asked):
    rows = PUBLISHED["nextqa"](tmp_path)
    (tmp_path / "nextqa/NExTVideo/4001.mp4").write_bytes(b"no video")
    right = lambda place, doc: RIGHT["nextqa"](doc)  # noqa: E731
    with pytest.raises(
        FitPruneError, match=r"^task 'nextqa_mc_test', row [345] of .*parquet: .*4001\.mp4: it cannot be decoded as"
    ):
        asked("nextqa", tmp_path, right, frames=2)
    answers = asked("nextqa", tmp_path, right, frames=2, allow_broken_images=True)
    assert [answer.answer for answer in answers.answers].count("") == 3
    assert answers.notes == ["nextqa: 3 videos cannot be decoded; their questions count as wrong"]
    assert len(rows) == 9


def without(suite, folder, row, value):
    """The table with one row's values changed."""
    spec = SUITES[suite]
    if suite == "mvbench":
        path = folder / "mvbench/json/action_sequence.json"
        rows = json.loads(path.read_text())
        rows[row].update(value)
        path.write_text(json.dumps(rows))
        return
    path = next((folder / (spec.data or spec.task)).rglob("*.parquet"))
    rows = pq.read_table(path).to_pylist()
    rows[row].update(value)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    ("suite", "row", "value", "said"),
    [
        ("videomme", 1, {"answer": "E"}, "column answer, row 1: must be one of A, B, C, D, not 'E'"),
        ("videomme", 1, {"duration": "tiny"}, "column duration, row 1: must be one of short, medium, long, not 'tiny'"),
        ("videomme", 2, {"domain": "Games"}, "column domain, row 2: must be one of Knowledge, "),
        ("videomme", 2, {"sub_category": ""}, "column sub_category, row 2: must be one of Humanity & History, "),
        ("videomme", 2, {"task_type": "Guessing"}, "column task_type, row 2: must be one of Temporal Perception, "),
        ("videomme", 0, {"options": ["A. One."]}, "column options, row 0: must be a list of four strings, not ['A. One.']"),
        ("videomme", 0, {"videoID": "gone"}, "the videos of 1 of 9 questions are not there, e.g. of row 0: "),
        ("mvbench", 1, {"answer": "other"}, "column answer, row 1: 'other' is none of the candidates"),
        ("mvbench", 1, {"candidates": ["one"]}, "column candidates, row 1: must be a list of two to five strings"),
        ("mvbench", 0, {"video": "gone.mp4"}, "the videos of 1 of 2 questions are not there, e.g. of row 0: "),
        ("nextqa", 3, {"answer": 5}, "column answer, row 3: must be the number of one of five answers, from 0, not 5"),
        ("nextqa", 3, {"a2": None}, "column a2, row 3: is null"),
        ("nextqa", 3, {"video": 7}, "the videos of 1 of 9 questions are not there, e.g. of row 3: "),
    ],
)
def test_what_cannot_be_asked_or_scored_is_refused_in_one_line(suite, row, value, said, tmp_path):
    PUBLISHED[suite](tmp_path)
    check_data(suite, str(tmp_path))
    without(suite, tmp_path, row, value)
    with pytest.raises(FitPruneError) as refused:
        check_data(suite, str(tmp_path))
    assert said in str(refused.value)
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_task_of_mvbench_that_is_not_there_is_named(tmp_path):
    PUBLISHED["mvbench"](tmp_path)
    (tmp_path / "mvbench/json/state_change.json").unlink()
    with pytest.raises(
        FitPruneError, match=r"no data for task 'mvbench': .*state_change.train\.parquet does not exist; give --data DIR"
    ):
        check_data("mvbench", str(tmp_path))
    (tmp_path / "mvbench/json/state_change.json").write_text("[{]")
    with pytest.raises(FitPruneError, match=r"state_change\.json: it is no JSON list of questions"):
        check_data("mvbench", str(tmp_path))
    (tmp_path / "mvbench/json/state_change.json").write_text('[{"video": "a.mp4"}]')
    with pytest.raises(FitPruneError, match=r"state_change\.json: a question has no question$"):
        check_data("mvbench", str(tmp_path))
    (tmp_path / "mvbench/json/state_change.json").write_text("[]")
    with pytest.raises(FitPruneError, match=r"state_change\.json: it holds no questions$"):
        check_data("mvbench", str(tmp_path))


@pytest.mark.parametrize("suite", PUBLISHED)
def test_the_hubs_archives_are_not_unpacked(suite):
    with pytest.raises(
        FitPruneError, match=rf"^suite '{suite}': its videos come from the hub in archives.* give --data DIR [^\n]*$"
    ):
        check_data(suite, "hub")
    with pytest.raises(FitPruneError, match="in archives"):
        build_task(suite, "hub")


@pytest.mark.parametrize("suite", PUBLISHED)
def test_there_is_no_mini_edition_of_the_public_ones(suite):
    with pytest.raises(
        FitPruneError, match=r"does not exist; give --data DIR with it and its videos \(docs/data\.md says where"
    ):
        check_data(suite, "mini")


def test_packages_that_are_missing_are_named(data, monkeypatch):
    folder = str(data[0])
    found = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(videos.questions.importlib.util, "find_spec", lambda name: None if name == "cv2" else found(name))
        with pytest.raises(
            FitPruneError, match=r"^suite 'videomme' needs .* 'cv2', [^\n]*: pip install opencv-python-headless$"
        ):
            check_data("videomme", folder)
        check_data("nextqa", folder)

    def missing():
        raise FitPruneError("no PyAV")

    monkeypatch.setattr(videos.questions, "require_reader", missing)
    with pytest.raises(FitPruneError, match="no PyAV"):
        check_data("nextqa", folder)
    check_data("gqa", "mini")


def test_the_environments_home_is_as_before(data, monkeypatch):
    """NExT-QA's code reads it when it is imported."""
    monkeypatch.delenv("HF_HOME", raising=False)
    build_task("nextqa", str(data[0]), 1)
    assert "HF_HOME" not in os.environ


def test_other_tasks_about_videos_are_refused():
    with pytest.raises(FitPruneError, match=r"is about video, .*videomme, mvbench, nextqa, mini-video$"):
        build_task("mvbench_moving_count", "mini")
    assert find_suite("nextqa_mc_test") is SUITES["nextqa"]
    assert reading.FRAMES == 32
    assert re.fullmatch(r"[\w ]+", SUITES["mini-video"].title)
