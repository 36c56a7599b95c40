"""The mini suite of videos, in the columns and tasks of MVBench, and the calibration set of videos.

The same version of PyAV writes the same bytes every time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fitprune.files import replacing
from harness.models.videos.reading import require_reader
from harness.scenes import moving, world
from harness.scenes.mini.table import Row, Table, table_of
from harness.scenes.moving import DIRECTIONS, FPS, STAYS, Mover, MovingScene

VIDEOS, CALIBRATION_VIDEOS = 36, 32
SUITE, CALIBRATION = 14, 50_000_000  # where their seeds begin, in tens of millions of the suites' and of calibration
Asked = tuple[str, list[str], str]
"""A question, its candidates and the answer."""


@dataclass(frozen=True)
class Clips:
    """Tables, and the videos that they name, by their paths below the data folder."""

    tables: list[Table]
    videos: dict[str, np.ndarray]


def mini_video(videos: int = VIDEOS) -> Clips:
    """Three questions a video, of three of MVBench's tasks in turn."""
    kinds = {
        "moving_direction": _direction,
        "moving_attribute": _attribute,
        "moving_count": _count,
        "object_existence": _existence,
    }
    rows: dict[str, list[Row]] = {kind: [] for kind in kinds}
    clips: dict[str, np.ndarray] = {}
    for number, (scene, rng) in enumerate(_scenes(world.SUITE_SEEDS.start + SUITE * 10_000_000, videos)):
        name = f"{scene.seed}.mkv"
        clips[f"mini_video/videos/{name}"] = moving.frames(scene)
        for place, (kind, ask) in enumerate(kinds.items()):
            if place == number % len(kinds):
                continue
            question, candidates, answer = ask(scene, rng)
            rows[kind].append({"video": name, "question": question, "candidates": candidates, "answer": answer})
    return Clips([table_of(f"mini_video/{kind}/train.parquet", own) for kind, own in rows.items()], clips)


def calibration_video(videos: int = CALIBRATION_VIDEOS) -> Clips:
    """One question a video, as MVBench's code puts it."""
    rows: list[Row] = []
    clips: dict[str, np.ndarray] = {}
    asking = (_direction, _attribute, _count, _existence)
    for number, (scene, rng) in enumerate(_scenes(world.CALIBRATION_SEEDS.start + CALIBRATION, videos)):
        path = f"calibration_videos/{scene.seed}.mkv"
        question, candidates, answer = asking[number % len(asking)](scene, rng)
        options = "".join(f"({letter}) {candidate}\n" for letter, candidate in zip("ABCDE", candidates, strict=False))
        prompt = f"Question:{question}\nOption:\n{options}Only give the best option.\n"
        rows.append({"video": path, "question": prompt, "answer": answer})
        clips[path] = moving.frames(scene)
    return Clips([table_of("calibration_video.parquet", rows)], clips)


VIDEO_MAKERS = {"mini_video": mini_video, "calibration_video": calibration_video}
"""What makes each set of videos."""


def write_clip(path: Path, pictures: np.ndarray) -> Path:
    """Write frames, uint8 (frames, height, width, 3), without loss, atomically: whatever decodes them has the same pixels."""
    require_reader()
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    exact = {"flags": "+bitexact"}
    with (
        replacing(path) as unfinished,
        av.open(str(unfinished), "w", format="matroska", options={"fflags": "+bitexact"}) as file,
    ):
        stream: Any = file.add_stream("ffv1", rate=FPS, options={"level": "3", "coder": "1", "context": "1", **exact})
        stream.height, stream.width, stream.pix_fmt, stream.thread_count = *pictures.shape[1:3], "bgr0", 1
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return path


def _scenes(start: int, count: int) -> Iterator[tuple[MovingScene, Random]]:
    for seed in range(start, start + count):
        yield moving.sample(seed), Random(seed * 2 + 2)


def _shuffled(rng: Random, wrong: Sequence[str], answer: str) -> list[str]:
    candidates = [*wrong, answer]
    rng.shuffle(candidates)
    return candidates


def _direction(scene: MovingScene, rng: Random) -> Asked:
    thing = rng.choice(scene.things)
    answer = scene.direction(thing)
    wrong = [other for other in (*DIRECTIONS, STAYS) if other != answer]
    return f"In which direction does the {thing.name} move?", _shuffled(rng, wrong, answer), answer


def _attribute(scene: MovingScene, rng: Random) -> Asked:
    """Of one that moves among its likes that stay, or the other way round."""
    sorted_by: dict[bool, list[Mover]] = {True: [], False: []}
    for thing in scene.things:
        sorted_by[scene.direction(thing) != STAYS].append(thing)
    moves = len(sorted_by[True]) == 1 or (len(sorted_by[False]) != 1 and rng.random() < 0.5)
    thing = rng.choice(sorted_by[moves])
    wrong = [other.name for other in sorted_by[not moves]][:3]
    question = f"Which of these things {'moves' if moves else 'does not move'}?"
    return question, _shuffled(rng, wrong, thing.name), thing.name


def _count(scene: MovingScene, rng: Random) -> Asked:
    answer = str(sum(scene.direction(thing) != STAYS for thing in scene.things))
    wrong = rng.sample([number for number in "12345" if number != answer], 3)
    return "How many things move in the video?", _shuffled(rng, wrong, answer), answer


def _existence(scene: MovingScene, rng: Random) -> Asked:
    """Of what comes or goes, more often where it is not: about as many answers are no as yes."""
    last = scene.things[-1]
    thing = last if len(last.frames) < moving.FRAMES and rng.random() < 0.9 else rng.choice(scene.things)
    at_first = rng.random() < 0.5
    if len(thing.frames) < moving.FRAMES:
        at_first = (0 in thing.frames) == (rng.random() < 0.25)
    answer = "yes" if (0 if at_first else moving.FRAMES - 1) in thing.frames else "no"
    where = "when the video begins" if at_first else "when the video ends"
    return f"Is there a {thing.name} {where}?", ["not sure", "yes", "no"], answer
