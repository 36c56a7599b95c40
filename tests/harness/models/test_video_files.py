"""Videos from a file to a model's answer, without torchvision: frames, pixels, prompts, what is pruned, and FLOPs."""

import builtins
import contextlib
import hashlib
import shutil
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.before_decoder.divprune import DivPrune
from baselines.between_layers.fastv import FastV
from baselines.controls.random_pruning import Random
from baselines.controls.uniform import Uniform
from baselines.on_videos.evs import EVS
from baselines.on_videos.vidcom2 import VidCom2
from fitprune import FitPrune, FitPruneError, fit
from harness.cost.flops import count, prompt_tokens
from harness.models.loading import load_model
from harness.models.prompting import encode
from harness.models.videos import reading, seeking
from harness.models.videos.reading import FRAMES, Video, read_video
from tests.support.clips import ENCODERS, moving, write
from tests.support.families import PATCH, save
from tests.support.flop_checkers import TOLERANCE, torch_flops
from tests.support.models import kept, new_tokens
from tests.support.videos import SEE_VIDEOS, Frames

pytest.importorskip("av")
pytestmark = pytest.mark.releases
FPS = 5


@pytest.fixture(scope="module", params=SEE_VIDEOS)
def loaded(request, tmp_path_factory):
    """A random model of the family, from a folder in the hub's layout."""
    return load_model(str(save(request.param, tmp_path_factory.mktemp(request.param), seed=1)), "cpu")


def clip(frames=6, width=24, height=24, seed=0):
    """A video as it is read, without a file."""
    pictures = moving(frames, width, height)
    noise = np.random.default_rng(seed).integers(0, 30, pictures.shape, dtype=np.uint8)
    return Video(pictures + noise, list(range(frames)), frames, FPS, f"{seed:016x}")


@pytest.mark.parametrize(("total", "asked"), [(12, 4), (12, 12), (7, 3), (3, 8), (1, 2)])
def test_frames_are_taken_at_even_distances(tmp_path, total, asked):
    frames = moving(total)
    video = read_video(write(tmp_path, frames), asked)
    expected = [int(number * (total - 1) / max(asked - 1, 1)) for number in range(asked)]
    assert (video.indices, video.total, video.fps) == (expected, total, FPS)
    assert np.array_equal(video.frames, frames[expected])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_whatever_has_written_it(tmp_path, encoder):
    """Containers with and without a number of frames in their head; lossy, so that pixels are near."""
    frames = moving(9)
    video = read_video(write(tmp_path, frames, ENCODERS[encoder]), 5)
    assert (video.indices, video.total) == ([0, 2, 4, 6, 8], 9)
    assert np.abs(video.frames.astype(int) - frames[video.indices]).mean() < 8


LONG_ONES = {
    "h264 with frames that lean on later ones": (ENCODERS["h264"], {"bf": "3", "g": "50"}),
    "h264 with one key frame": (ENCODERS["h264"], {"g": "10000"}),
    "h264 with open groups": (ENCODERS["h264"], {"g": "24", "bf": "2", "x264-params": "open-gop=1"}),
    "vp9, whose head has no number of frames": (ENCODERS["vp9"], {"g": "32"}),
    "mpeg4, whose packets have no times": (ENCODERS["mpeg4"], {"g": "12"}),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", LONG_ONES)
@pytest.mark.parametrize("asked", [1, 7, 32])
def test_a_long_video_has_the_frames_that_decoding_all_of_it_gives(tmp_path, kind, asked):
    encoder, options = LONG_ONES[kind]
    path = write(tmp_path, moving(700, 32, 24), encoder, options=options)
    video = read_video(path, asked)
    plain, total = reading._decoded(path, set(video.indices))
    assert (video.total, total - 1) == (700, max(video.indices))
    assert video.indices == np.linspace(0, 699, asked, dtype=int).tolist()
    assert np.array_equal(video.frames, np.stack([plain[index] for index in video.indices]))


def test_of_a_long_video_little_is_decoded(tmp_path, monkeypatch):
    """With a key frame every 50 frames; the same frames, turned too, as all of them decoded."""
    path = write(tmp_path, moving(600, 32, 24), ENCODERS["h264"], options={"g": "50"})
    sequential = reading._decoded(path, {0, 299, 599})[0]
    monkeypatch.setattr(reading, "_decoded", None)
    assert np.array_equal(read_video(path, 3).frames, np.stack([sequential[number] for number in (0, 299, 599)]))


@pytest.mark.parametrize("change", [{"pts": None}, {"is_discard": True}, {"is_corrupt": True}, {"pts": 0}])
def test_packets_that_do_not_say_which_frame_is_which_are_not_believed(tmp_path, monkeypatch, change):
    import av

    path = write(tmp_path, moving(20, 32, 24), ENCODERS["h264"])
    assert seeking.sought(path, [3, 7], 20, id).keys() == {3, 7}
    assert seeking.sought(path, [3, 7], 19, id) is None
    with av.open(str(path)) as file:
        there = [packet for packet in file.demux(video=0) if packet.size]
    plain = [
        {name: getattr(packet, name) for name in ("pts", "size", "is_keyframe", "is_discard", "is_corrupt")} for packet in there
    ]
    made = [SimpleNamespace(**known | (change if number == 5 else {})) for number, known in enumerate(plain)]
    opened = av.open

    def changed(name):
        file = opened(name)
        return contextlib.nullcontext(SimpleNamespace(streams=file.streams, demux=lambda stream: made))

    monkeypatch.setattr(av, "open", changed)
    assert seeking.sought(path, [3, 7], 20, id) is None


def test_a_file_is_known_by_its_content(tmp_path):
    path = write(tmp_path, moving(4))
    copied = shutil.copy(path, tmp_path / "copy.mkv")
    one, same = read_video(path, 2), read_video(copied, 2)
    assert one.digest == same.digest == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert read_video(write(tmp_path, moving(5)), 2).digest != one.digest


TURNS = {  # of the file's frames, as (a, b, c, d) of its display matrix and as numpy turns pixels
    "by a quarter, as a phone held upright": ((0, 1, -1, 0), lambda frames: np.rot90(frames, -1, (1, 2))),
    "by half": ((-1, 0, 0, -1), lambda frames: np.rot90(frames, 2, (1, 2))),
    "by three quarters": ((0, -1, 1, 0), lambda frames: np.rot90(frames, 1, (1, 2))),
    "mirrored": ((-1, 0, 0, 1), lambda frames: frames[:, :, ::-1]),
    "turned and mirrored": ((0, 1, 1, 0), lambda frames: frames.swapaxes(1, 2)),
    "as it is": ((1, 0, 0, 1), lambda frames: frames),
}


def turned(path, matrix):
    """An mp4, whose head now says how it is to be turned."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # behind version, times, layer and volume
    assert content[at : at + 36] == struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (round(value * (1 << 16)) for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("turn", TURNS)
def test_a_video_is_turned_as_players_turn_it(tmp_path, turn):
    matrix, expected = TURNS[turn]
    path = write(tmp_path, moving(6), ENCODERS["h264"])
    plain = read_video(path, 3).frames
    video = read_video(turned(path, matrix), 3)
    assert np.array_equal(video.frames, expected(plain))
    assert video.frames.flags["C_CONTIGUOUS"]


def test_a_turn_by_anything_else_is_refused(tmp_path):
    half = 0.5**0.5
    with pytest.raises(FitPruneError, match=r"clip\.mp4: it cannot be decoded as a video \(its display matrix turns it"):
        read_video(turned(write(tmp_path, moving(6), ENCODERS["h264"]), (half, half, -half, half)), 3)


def damaged(folder):
    path = write(folder, moving(4), ENCODERS["h264"])
    path.write_bytes(path.read_bytes()[:100])
    return path


def sound(folder):
    import av

    path = folder / "sound.wav"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
    return path


def words(folder):
    (folder / "words.mp4").write_text("no video at all")
    return folder / "words.mp4"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (damaged, r"clip\.mp4: it cannot be decoded as a video \([^\n]+\)$"),
        (words, r"words\.mp4: it cannot be decoded as a video \([^\n]+\)$"),
        (sound, r"sound\.wav: it cannot be decoded as a video \(no frame is in it\)$"),
        (lambda folder: folder / "none.mp4", r"^there is no video .*none\.mp4$"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, made, said):
    with pytest.raises(FitPruneError, match=said):
        read_video(made(tmp_path), 4)


def test_without_pyav_a_line_says_what_to_install(tmp_path, monkeypatch):
    path, plain = write(tmp_path, moving(4)), builtins.__import__

    def without(name, *rest):
        if name == "av":
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FitPruneError, match=r"^videos are read with PyAV, which is not installed; .*\[video\]'$"):
        read_video(path)


def test_no_frame_is_no_video(tmp_path):
    with pytest.raises(FitPruneError, match=r"^a video is shown by one frame at least, not 0$"):
        read_video(tmp_path / "any.mp4", 0)
    assert FRAMES == 32


def literal(loaded, video):
    """A video's pixels by hand, and its grid: Pillow's resizing of each frame, and the family's patches of two frames."""
    made = loaded.processor.video_processor
    family = loaded.config.model_type
    frames = torch.tensor(np.stack([np.asarray(frame) for frame in video])).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(part).double()[:, None, None] for part in (made.image_mean, made.image_std))
    frames = (frames - mean) / std
    if family == "llava_onevision":
        return frames[None], None
    frames = torch.cat([frames, frames[-1:]]) if len(frames) % 2 else frames
    grid = len(frames) // 2, frames.shape[2] // PATCH, frames.shape[3] // PATCH
    return Frames(family)._patches(frames, *grid), list(grid)


@pytest.mark.parametrize("frames", [1, 4, 5])
@pytest.mark.parametrize("size", [(24, 24), (50, 30), (16, 40)])
def test_pixels_are_those_of_the_documented_arithmetic(loaded, size, frames):
    """Resized as Pillow does it, which torchvision follows to a level of 255; normalised; patches in the tower's order."""
    video = clip(frames, *size)
    inputs = encode(loaded, ["w1"], [[]], [[video]])
    height, width = 24, 24
    if loaded.config.model_type != "llava_onevision":
        grid = inputs["video_grid_thw"][0].tolist()
        height, width = grid[1] * PATCH, grid[2] * PATCH
    resized = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in video.frames]
    expected, own = literal(loaded, resized)
    made = inputs["pixel_values_videos"].double()
    assert made.shape == expected.shape
    assert own is None or inputs["video_grid_thw"].tolist() == [own]
    level = 1 / 255 / min(loaded.processor.video_processor.image_std)
    assert float((made - expected).abs().max()) <= (1.01 * level if (width, height) != size else 1e-6)


@pytest.mark.parametrize("size", [(90, 24), (200, 160), (20, 12)])
def test_a_frame_of_qwen2_5_vl_has_the_size_of_an_image_and_a_video_of_qwen3_vl_that_of_all_its_frames(loaded, size):
    if loaded.config.model_type == "llava_onevision":
        return
    video = clip(6, *size)
    inputs = encode(loaded, ["w1"], [[Image.fromarray(video.frames[0])]], [[video]])
    if loaded.config.model_type == "qwen2_5_vl":
        assert inputs["video_grid_thw"][0, 1:].tolist() == inputs["image_grid_thw"][0, 1:].tolist()
    else:
        side, bounds = 2 * PATCH, loaded.processor.video_processor.size
        height, width = (max(side, round(length / side) * side) for length in reversed(size))
        if 6 * height * width > bounds["longest_edge"]:
            shrink = (6 * size[0] * size[1] / bounds["longest_edge"]) ** 0.5
            height, width = (int(length / shrink // side) * side for length in reversed(size))
        assert inputs["video_grid_thw"][0].tolist() == [3, height // PATCH, width // PATCH]


def test_a_prompt_holds_the_tokens_and_the_times_of_its_frames(loaded, monkeypatch):
    """Of Qwen3-VL's, the middle of each two frames' times; of Qwen2.5-VL's, the seconds between two."""
    family, times = loaded.config.model_type, []
    if family == "qwen3_vl":
        made = type(loaded.processor)._calculate_timestamps
        noted = lambda *given: times.append(made(*given)) or times[-1]  # noqa: E731
        monkeypatch.setattr(type(loaded.processor), "_calculate_timestamps", noted)
    video = Video(moving(6, 24, 24), [0, 5, 10, 15, 20, 25], 26, FPS, "")
    inputs = encode(loaded, ["w1 w2"], [[]], [[video]])
    expected = 6 * 9 + 1 if family == "llava_onevision" else int(inputs["video_grid_thw"].prod()) // 4
    assert int((inputs["input_ids"] == loaded.config.video_token_id).sum()) == expected
    assert prompt_tokens(loaded.config, inputs)[1].tolist() == [expected]
    if family == "qwen2_5_vl":
        assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 * 26 / 6 / FPS])
    if family == "qwen3_vl":
        assert times[0] == [0.5, 2.5, 4.5]


def test_a_video_s_token_in_a_question_stands_for_none(loaded):
    token = loaded.processor.video_token
    plain, marked = (encode(loaded, [text], [[]], [[clip()]]) for text in ("w1 w2", f"w1 {token} w2"))
    assert int((marked["input_ids"] == loaded.config.video_token_id).sum()) == int(
        (plain["input_ids"] == loaded.config.video_token_id).sum()
    )


PRUNERS = {
    "fastv": FastV(k=1, r=0.5),
    "random": Random(0.5),
    "uniform": Uniform(0.5),
    "divprune": DivPrune(0.5, positions="kept"),
    "evs": EVS(0.5),
    "vidcom2": VidCom2(0.5, exact=True, positions="kept"),
}


@pytest.mark.parametrize("name", [*PRUNERS, "fitprune"])
def test_every_method_for_videos_runs_and_its_flops_are_torch_s(loaded, name):
    """Of an odd number of frames; FitPrune by a recipe that is fitted on videos."""
    batch = encode(loaded, ["w1 w2 w3", "w4 w5 w6"], [[], []], [[clip(5, seed=1)], [clip(5, seed=2)]])
    pruner = PRUNERS.get(name) or FitPrune(fit(loaded.model, [batch], 0.4, progress=False))
    with torch.no_grad(), pruner(loaded.model) as trace:
        new_tokens(loaded.model, batch, 2)
        seen = torch_flops(loaded.model, **batch).get_total_flops()
        assert 0 < len(kept(trace)[-1]) < int(trace.visual_tokens[0])
    cost, dense = count(loaded.model, batch, pruner, new_tokens=1), count(loaded.model, batch, new_tokens=1)
    assert cost.total == pytest.approx(seen, rel=TOLERANCE)
    assert cost.total < dense.total
    assert (cost.vision, cost.projector) == (dense.vision, dense.projector)


def test_flops_of_videos_beside_images(loaded):
    video, picture = clip(4), Image.fromarray(moving(1, 30, 20)[0])
    batch = encode(loaded, ["w1 w2"], [[picture]], [[video]])
    with torch.no_grad():
        seen = torch_flops(loaded.model, **batch).get_total_flops()
    assert count(loaded.model, batch, new_tokens=1).total == pytest.approx(seen, rel=TOLERANCE)


def test_a_batch_of_a_video_two_and_none(loaded):
    """Videos of other lengths where the model takes them; in a line where it does not."""
    batch = encode(loaded, ["w1 w2", "w3", "w4 w5 w6"], [[], [], []], [[clip(4)], [], [clip(4, seed=1), clip(4, seed=2)]])
    visual = prompt_tokens(loaded.config, batch)[1].tolist()
    assert visual == [visual[0], 0, 2 * visual[0]]
    with torch.no_grad(), EVS(0.5)(loaded.model) as trace:
        loaded.model(**batch)
        assert len(kept(trace, 2)[0]) == 2 * len(kept(trace, 0)[0]) > 0
    if loaded.config.model_type == "llava_onevision":
        with pytest.raises(FitPruneError, match=r"takes videos of a batch with equally many frames; read all [^\n]*$"):
            encode(loaded, ["w1", "w2"], [[], []], [[clip(4)], [clip(6)]])
    else:
        assert "pixel_values_videos" in encode(loaded, ["w1", "w2"], [[], []], [[clip(4)], [clip(6)]])


def test_a_model_that_is_shown_images_alone_refuses_a_video(tmp_path):
    loaded = load_model(str(save("llava_next", tmp_path, layers=1)), "cpu")
    with pytest.raises(FitPruneError, match=r"is shown images alone; models with videos are LLaVA-OneVision[^\n]*$"):
        encode(loaded, ["w1"], [[]], [[clip()]])
