"""The drawn videos: answers are true of the pixels, files are written again bit by bit, none is in two places."""

import functools
import pathlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from fitprune import FitPruneError
from harness.__main__ import main
from harness.models.videos.reading import read_video
from harness.scenes import draw, moving, world
from harness.scenes.mini import table as tables
from harness.scenes.mini import videos
from harness.scenes.moving import DIRECTIONS, STAYS
from harness.tasks.mini_data import mini_folder
from harness.tasks.shipped.videos import MINI

pytest.importorskip("av")
pytestmark = pytest.mark.releases
FOLDER = mini_folder()
ROWS = {kind: pq.read_table(FOLDER / f"mini_video/{kind}/train.parquet").to_pylist() for kind in MINI}
CALIBRATION = pq.read_table(FOLDER / "calibration_video.parquet").to_pylist()


def places(frames, name):
    """Where a thing is, frame by frame: the upper left corner (x, y) of its block; None where there is none."""
    color, shape = name.split()
    mask = draw.outline(shape, 7.0, 0, 0)
    found = []
    for frame in frames:
        windows = np.lib.stride_tricks.sliding_window_view((frame == draw.RGB[color]).all(-1), (16, 16))
        level = [(left, 16 * lane) for lane, left in np.argwhere((windows[::16] == mask).all((2, 3)))]
        upright = [(16 * lane, top) for top, lane in np.argwhere((windows[:, ::16] == mask).all((2, 3)))]
        found.append(next(iter(level + upright), None))
    return found


def way(there):
    """In which of the directions a thing's places lead."""
    found = [place for place in there if place is not None]
    across, down = np.array(found[-1]) - found[0]
    if (across, down) == (0, 0):
        return STAYS
    return DIRECTIONS[0 if across > 0 else 1] if across else DIRECTIONS[2 if down > 0 else 3]


@functools.cache
def seen(video):
    """Of a file, each thing's places in the first frame, in those around the middle, and in the last."""
    path = FOLDER / "mini_video/videos" / video
    frames, scene = read_video(path, moving.FRAMES).frames, moving.sample(int(path.stem))
    assert np.array_equal(frames, moving.frames(scene))
    return {thing.name: places(frames[[0, 3, 4, 7]], thing.name) for thing in scene.things}


@pytest.mark.exhaustive
def test_every_answer_is_true_of_the_pixels():
    for kind, rows in ROWS.items():
        assert len(rows) == 27
        for row in rows:
            things = seen(row["video"])
            words, answer = row["question"].rstrip("?").split(), row["answer"]
            assert row["candidates"].count(answer) == 1
            if kind == "moving_direction":
                assert answer == way(things[" ".join(words[5:7])])
            elif kind == "moving_attribute":
                moves = words[-1] == "moves"
                assert [name for name in row["candidates"] if (way(things[name]) != STAYS) == moves] == [answer]
            elif kind == "moving_count":
                assert answer == str(sum(way(there) != STAYS for there in things.values()))
            else:
                there = things[" ".join(words[3:5])][0 if words[-1] == "begins" else -1]
                assert answer == ("no" if there is None else "yes")


def test_answers_are_not_to_be_guessed():
    for kind, rows in ROWS.items():
        answers = [row["answer"] for row in rows]
        assert max(map(answers.count, answers)) <= 0.7 * len(rows), kind
        letters = [row["candidates"].index(row["answer"]) for row in rows]
        assert len(set(letters)) >= 2


def test_they_are_written_again_bit_by_bit(tmp_path):
    for maker in videos.VIDEO_MAKERS.values():
        clips = maker()
        for name, pictures in list(clips.videos.items())[::6]:
            assert videos.write_clip(tmp_path / name, pictures).read_bytes() == (FOLDER / name).read_bytes(), name
        for table in clips.tables:
            fresh, shipped = tables.write(table, tmp_path), FOLDER / table.path
            assert pq.read_table(fresh).to_pylist() == pq.read_table(shipped).to_pylist()


def test_what_ships_is_small_and_all_of_it_is_asked_about():
    files = sorted((FOLDER / "mini_video/videos").iterdir())
    assert {file.name for file in files} == {row["video"] for rows in ROWS.values() for row in rows}
    calibrating = sorted((FOLDER / "calibration_videos").iterdir())
    assert [f"calibration_videos/{file.name}" for file in calibrating] == sorted(row["video"] for row in CALIBRATION)
    assert len(calibrating) == 32
    assert sum(file.stat().st_size for file in (*files, *calibrating)) < 600_000
    seeds = [int(file.stem) for file in files]
    assert all(seed in world.SUITE_SEEDS for seed in seeds)
    assert all(int(file.stem) in world.CALIBRATION_SEEDS for file in calibrating)
    contents = [file.read_bytes() for file in (*files, *calibrating)]
    assert len(set(contents)) == len(contents)


def test_calibration_prompts_are_those_of_mvbenchs_code():
    from lmms_eval.tasks.mvbench.utils import mvbench_doc_to_text

    asking = (videos._direction, videos._attribute, videos._count, videos._existence)
    for number, (row, (scene, rng)) in enumerate(zip(CALIBRATION, videos._scenes(1_150_000_000, 32), strict=True)):
        question, candidates, answer = asking[number % 4](scene, rng)
        doc = {"question": question, "candidates": candidates}
        assert row["question"] == mvbench_doc_to_text(doc, {"post_prompt": "Only give the best option.\n"})
        assert row["answer"] == answer


def test_the_command_writes_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("harness.scenes.mini.command.MAKERS", {})
    monkeypatch.setattr("harness.scenes.mini.command.VIDEO_MAKERS", {"few": lambda: videos.mini_video(2)})
    assert main(["scenes", "--out", str(tmp_path)]) == 0
    assert len(list((tmp_path / "mini_video/videos").iterdir())) == 2
    assert "2 videos, " in capsys.readouterr().out
    assert main(["scenes", "--out", str(tmp_path / "fine"), "--canvas", "1x2"]) == 0  # without them
    assert not pathlib.Path(tmp_path / "fine/mini_video").exists()


def test_without_pyav_the_command_writes_nothing(tmp_path, capsys, monkeypatch):
    def missing():
        raise FitPruneError("videos are read with PyAV, which is not installed")

    monkeypatch.setattr("harness.scenes.mini.command.require_reader", missing)
    assert main(["scenes", "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.startswith("error: videos are read with PyAV")
    assert not (tmp_path / "new").exists()
