"""Data of Video-MME, MVBench and NExT-QA in the layouts that they are published in, with tiny videos and few questions."""

import importlib.machinery
import json
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq

from harness.tasks.shipped.videos import MVBENCH
from tests.support.clips import ENCODERS, LOSSLESS, moving, write

VIDEOS = 3
FRAMES = 5


def clip(path, frames=FRAMES, number=0):
    """A video of this file's name, unlike those of other numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder = LOSSLESS if path.suffix == ".mkv" else ENCODERS["h264"]
    pictures = moving(frames, 24, 24)
    pictures[:, -4:, : 4 + 2 * number] = 255
    write(path.parent, pictures, (path.name, *encoder[1:]))
    return path


def parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def videomme(folder):
    """As `lmms-eval/Video-MME` has it; the second video's name ends in MP4."""
    for number in range(VIDEOS):
        clip(folder / "videomme" / "data" / f"v{number}.{['mp4', 'MP4', 'mkv'][number]}", number=number)
    rows = [
        {
            "video_id": f"{number // 3:03d}",
            "duration": ("short", "medium", "long")[number // 3],
            "domain": ("Knowledge", "Film & Television", "Sports Competition")[number % 3],
            "sub_category": ("Astronomy", "Animation", "Football")[number % 3],
            "url": "https://example.org/watch",
            "videoID": f"v{number // 3}",
            "question_id": f"{number // 3:03d}-{number % 3}",
            "task_type": ("Counting Problem", "Action Recognition", "OCR Problems")[number % 3],
            "question": f"How many squares are there in {number}?",
            "options": ["A. One.", "B. Two.", "C. Three.", "D. None."],
            "answer": "ABCD"[number % 4],
        }
        for number in range(3 * VIDEOS)
    ]
    parquet(folder / "videomme/default/test-00000-of-00001.parquet", rows)
    return rows


def mvbench(folder):
    """As `OpenGVLab/MVBench` has it: JSON files of several shapes; one task here as parquet, one among the archives of 0613."""
    from lmms_eval.tasks.mvbench.utils import DATA_LIST

    asked = []
    for number, task in enumerate(MVBENCH):
        below = "data0613/" if task == "object_interaction" else ""
        name = f"{task}.mp4"
        if not (path := folder / "mvbench" / f"{below}{DATA_LIST[task]}" / name).is_file():
            clip(path, number=number % 4)
        candidates = [f"thing {place}" for place in range(2 + number % 4)]
        rows = [
            {"video": name, "question": f"What is {task} {n}?", "candidates": candidates, "answer": candidates[n % 2]}
            for n in range(2)
        ]
        if task == "moving_count":
            parquet(folder / f"mvbench/{task}/train.parquet", rows)
        else:
            more = {"start": 0.5, "end": 2.0} if number % 2 else {}
            (folder / "mvbench/json").mkdir(parents=True, exist_ok=True)
            (folder / f"mvbench/json/{task}.json").write_text(json.dumps([row | more for row in rows]))
        asked += [row | {"config": task} for row in rows]
    return asked


def nextqa(folder):
    """As `lmms-eval/NExTQA` has its multiple choice; ids of videos are numbers."""
    for number in range(VIDEOS):
        clip(folder / "nextqa" / "NExTVideo" / f"{4000 + number}.mp4", number=number)
    rows = [
        {
            "video": 4000 + number // 3,
            "frame_count": FRAMES,
            "width": 24,
            "height": 24,
            "question": f"why did the square move {number}",
            "answer": number % 5,
            "qid": number % 3,
            "type": "CW",
            **{f"a{place}": f"{('a', 'no', 'one', 'red', 'big')[place]} reason {number}" for place in range(5)},
        }
        for number in range(3 * VIDEOS)
    ]
    parquet(folder / "nextqa/MC/test-00000-of-00001.parquet", rows)
    return rows


PUBLISHED = {"videomme": videomme, "mvbench": mvbench, "nextqa": nextqa}


def with_cv2(monkeypatch):
    """A module of OpenCV's name, unless it is installed: Video-MME's code imports it, and calls it for subtitles alone."""
    if importlib.util.find_spec("cv2") is None:
        module = types.ModuleType("cv2")
        module.__spec__ = importlib.machinery.ModuleSpec("cv2", None)
        monkeypatch.setitem(sys.modules, "cv2", module)
