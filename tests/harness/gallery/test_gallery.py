"""The gallery: what its files hold is what the pruners kept and the models answered; pictures are what the models see."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.between_layers.fastv import FastV
from fitprune.errors import FitPruneError
from harness.__main__ import main
from harness.answering.evaluate import sample_inputs
from harness.gallery.file import FOLDER, check_scene
from harness.gallery.survivors import masks
from harness.gallery.views import views_of
from harness.models.loading import load_model
from harness.tasks.build import build_task
from reports.page.left import read_gallery
from tests.support.evaluating import evaluate_cell

pytestmark = pytest.mark.releases


def make(folder, model, *more):
    words = [
        "gallery",
        "--model",
        model,
        "--suite",
        "gqa",
        "--questions",
        "3",
        "--device",
        "cpu",
        "--results",
        str(folder),
        *more,
    ]
    assert main(words) == 0
    return [json.loads(path.read_text()) for path in sorted((folder / FOLDER).glob("*.json"))]


@pytest.fixture(scope="module")
def tiny():
    return load_model("llava-tiny", "cpu")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """llava-tiny under two methods, at a budget that FastV cannot reach too."""
    folder = tmp_path_factory.mktemp("results")
    return folder, make(folder, "llava-tiny", "--pruner", "fastv,random", "--reduction", "0.5,0.9")


def picture(view):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(view["picture"].partition(",")[2]))))


def kept(part, layer):
    """The tokens of a mask, bit by bit."""
    bits = "".join(f"{int(digit, 16):04b}" for digit in part["masks"][part["layers"][layer]])
    return [token for token, bit in enumerate(bits[: part["tokens"]]) if bit == "1"]


def part_of(scene, pruner, reduction):
    (part,) = [part for part in scene["pruned"] if (part["pruner"], part["reduction"]) == (pruner, reduction)]
    return part


@pytest.mark.exhaustive
def test_masks_answers_and_pictures_are_those_of_the_question(drawn, tiny):
    """Each question again by itself, found by its picture, since a prompt's place says nothing about its question."""
    _, scenes = drawn
    assert len(scenes) == 3
    fastv = FastV.for_reduction(tiny.model.config, 0.5)
    answers = {answer.doc_id: answer for answer in evaluate_cell(tiny, fastv, "gqa", limit=3).answers}
    found = 0
    for inputs in sample_inputs(tiny, "gqa", limit=3, batch_size=1):
        seen = (inputs["pixel_values"][0].permute(1, 2, 0).numpy() * 0.5 + 0.5) * 255
        text = tiny.processor.tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True)
        (scene,) = [
            scene for scene in scenes if np.abs(picture(scene["views"][0]) - seen).max() <= 0.51 and scene["question"] in text
        ]
        with torch.inference_mode(), fastv(tiny.model) as trace:
            tiny.model(**inputs)
        part = part_of(scene, "fastv", 0.5)
        assert [kept(part, layer) for layer in range(8)] == [layer[0].tolist() for layer in trace.kept]
        assert part["left"] == [layer.shape[1] for layer in trace.kept]
        answer = answers[scene["doc_id"]]
        assert (part["answer"], part["score"], scene["question"]) == (answer.answer, answer.score, answer.question)
        found += 1
    assert found == 3


def test_a_method_that_cannot_run_says_why(tmp_path):
    (scene, *_) = make(tmp_path, "llava-tiny", "--pruner", "fastv", "--reduction", "0.99")
    assert re.search("reach", part_of(scene, "fastv", 0.99)["cannot"])


def test_dense_answers_stand_beside_and_the_command_makes_it_again(drawn, tiny):
    folder, scenes = drawn
    dense = {answer.doc_id: answer for answer in evaluate_cell(tiny, None, "gqa", limit=3).answers}
    for scene in scenes:
        assert scene["dense"] == {"answer": dense[scene["doc_id"]].answer, "score": dense[scene["doc_id"]].score}
        assert scene["target"] == dense[scene["doc_id"]].target
    words = scenes[0]["command"].split()
    assert words[:2] == ["fitprune", "gallery"]
    before = {path.name: json.loads(path.read_text()) for path in (folder / FOLDER).iterdir()}
    assert main([*words[1:], "--results", str(folder)]) == 0
    after = {path.name: json.loads(path.read_text()) for path in (folder / FOLDER).iterdir()}
    assert after.keys() == before.keys()
    assert all(after[name] | {"date": ""} == before[name] | {"date": ""} for name in before)


def test_random_draws_the_seed(drawn, tmp_path):
    _, scenes = drawn
    others = make(tmp_path, "llava-tiny", "--pruner", "random", "--reduction", "0.5", "--seed", "1")
    drawn_sets = [[kept(part_of(scene, "random", 0.5), 0) for scene in made] for made in (scenes, others)]
    assert drawn_sets[0] != drawn_sets[1]


def test_a_tiled_model_shows_its_base_view_and_its_tiles(tmp_path):
    """The grid's picture is the image itself, but for the resampling."""
    scenes = make(tmp_path, "llava-next-tiny", "--pruner", "fastv", "--reduction", "0.5")
    task = build_task("gqa", "mini", 3)
    rows = {int(row): place for place, row in enumerate(task.rows)}
    for scene in scenes:
        base, tiles = scene["views"]
        assert (base["columns"], base["rows"]) == (12, 12)
        assert base["columns"] * base["rows"] + tiles["columns"] * tiles["rows"] == scene["tokens"]
        original = task.dataset[task.config.test_split or "testdev"][rows[scene["doc_id"]]]["image"].convert("RGB")
        for view in (base, tiles):
            shown = picture(view)
            assert shown.shape[1] / shown.shape[0] == pytest.approx(view["columns"] / view["rows"])
            resized = np.asarray(original.resize(shown.shape[1::-1], Image.Resampling.BICUBIC), dtype=float)
            assert np.abs(shown - resized).mean() < 4


def test_llava_hr_shows_one_grid(tmp_path):
    scene, *_ = make(tmp_path, "llava-hr-tiny", "--pruner", "fastv", "--reduction", "0.5")
    (view,) = scene["views"]
    assert (view["columns"], view["rows"], picture(view).shape) == (12, 12, (192, 192, 3))


def test_of_an_unknown_layout_only_the_order_is_shown(tiny):
    (view,) = views_of(tiny, {"pixel_values": torch.zeros(9, 1176)}, 7)
    assert (view.picture, view.columns, view.rows) == ("", 3, 3)
    assert "not known" in view.label
    (view,) = views_of(tiny, {"pixel_values": torch.zeros(1, 3, 8, 8)}, 7)  # no square: a method took some away
    assert view.picture == ""


def test_equal_layers_share_a_mask():
    assert masks([[0, 8], [0, 8], []], 9) == {"masks": ["8080", "0000"], "layers": [0, 0, 1]}


def test_tokens_of_no_single_patch_are_counted_and_a_changed_tower_is_said(tmp_path):
    """VisionZip keeps [CLS], which is no patch; downsampling changes what the tower sees."""
    scenes = make(tmp_path, "llava-tiny", "--pruner", "visionzip,downsample,fastv", "--reduction", "0.7")
    for scene in scenes:
        zipped, smaller, plain = (part_of(scene, pruner, 0.7) for pruner in ("visionzip", "downsample", "fastv"))
        assert zipped["left"] == [len(kept(zipped, layer)) + 1 for layer in range(8)]
        assert plain["left"] == [len(kept(plain, layer)) for layer in range(8)]
        assert (zipped["tower"], smaller["tower"], plain["tower"]) == (False, True, False)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 9},
        {"views": [{"label": "", "columns": 1, "rows": 1, "picture": ""}]},
        {"views": [{"label": "", "columns": 12, "rows": 12, "picture": "http://elsewhere/a.png"}]},
        {"question": 3},
        {"pruned": [{"pruner": "x"}]},
        {"pruned": [{"answer": "a", "tokens": 144, "masks": ["00"], "layers": [0], "left": [1]}]},
        {"pruned": [{"answer": "a", "tokens": 8, "masks": ["00"], "layers": [1], "left": [1]}]},
        {"dense": None},
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_shown(drawn, tmp_path, change):
    _, scenes = drawn
    check_scene(scenes[0])
    with pytest.raises(FitPruneError):
        check_scene(scenes[0] | change)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "a.json").write_text(json.dumps(scenes[0]))
    (tmp_path / FOLDER / "b.json").write_text(json.dumps(scenes[0] | change))
    (tmp_path / FOLDER / "c.json").write_text("{")
    shown, notes = read_gallery(tmp_path)
    assert shown == [scenes[0]]
    assert [note.partition(" is damaged")[0] for note in notes] == ["gallery/b.json", "gallery/c.json"]


def test_a_gallery_that_is_too_large_is_cut_and_it_is_said(drawn, monkeypatch):
    folder, scenes = drawn
    monkeypatch.setattr("reports.page.left.GALLERY_BYTES", len(json.dumps(scenes[0])) + 100)
    shown, notes = read_gallery(folder)
    assert len(shown) < 3
    assert notes == [f"the gallery is full: {3 - len(shown)} of its pictures are left out"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "gqu"], "unknown suite 'gqu'; did you mean gqa"),
        (["--pruner", "fastvv"], "unknown pruner 'fastvv'; did you mean fastv"),
        (["--pruner", "dense"], "--pruner names no method that prunes"),
        (["--reduction", "1.5"], "--reduction 1.5 is not between 0 and 1"),
        (["--reduction", "half"], "--reduction half is not between 0 and 1"),
        (["--questions", "0"], "--questions 0 is not a whole number of at least 1"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, words, said):
    assert main(["gallery", "--results", str(tmp_path / "r"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()
