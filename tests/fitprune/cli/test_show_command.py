"""`fitprune show`, as a user types it: the words, the bars, and the pictures."""

import itertools
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict

import pytest
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from fitprune import Recipe
from fitprune.__main__ import main

pytestmark = pytest.mark.releases

# Tokens left after each of LLaVA-1.5-7B's layers by the authors' table for 60 %.
DROP_60 = [14, 33, 89, 36, 36, 20, 55, 21, 18, 4, 7, 5, 2, 5, 7, 4, 26, 5, 11, 24, 4, 18, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0]
LEFT_60 = [576 - dropped for dropped in itertools.accumulate(DROP_60)]
MINE = [200] + [10] * 31  # what is ours in the pictures
LEFT_MINE = [376 - 10 * layer for layer in range(32)]


def llava_7b():
    text = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
    return LlavaConfig(vision_config=CLIPVisionConfig(image_size=336, patch_size=14), text_config=text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a recipe for LLaVA-1.5-7B, `mine.json`, and one written by hand, `hand.json`."""
    monkeypatch.chdir(tmp_path)
    provenance = {
        "model": "llava-hf/llava-1.5-7b-hf",
        "revision": "b234b80",
        "data": {"id": "mini", "digest": "00ff", "samples": 256},
        "budget": {"asked": 0.6, "reached": 0.6012, "scoring_counted": True},
        "alpha": 0.25,
        "mode": "one-pass",
        "versions": {"fitprune-bench": "0.1.0"},
    }
    Recipe(MINE, 576, provenance=provenance).for_model(llava_7b()).save("mine.json")
    Recipe([3, 0, 33], 36).save("hand.json")
    return tmp_path


def rows(out):
    """Of each layer: number, drop, left, bar, and what else stands in its line."""
    for line in out.splitlines():
        if found := re.fullmatch(r" +(\d+) +(\d+) +(\d+) *(#*) *(\d+)?", line):
            yield int(found[1]), int(found[2]), int(found[3]), found[4], found[5] and int(found[5])


def test_a_published_recipe_in_words(capsys):
    assert main(["show", "published:llava-1.5-7b@60"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("published:llava-1.5-7b@60: saves 59.7% of the visual tokens' FLOPs\n")
    assert re.search(r"budget +60\.0% asked, 59\.70% reached", out)
    assert re.search(r"visual tokens +576; 127 are left after the last layer", out)
    table = list(rows(out))
    assert [row[:3] for row in table] == list(zip(range(32), DROP_60, LEFT_60, strict=True))
    assert [len(row[3]) for row in table] == [-(-40 * left // 576) for left in LEFT_60]  # 40 characters for all of them
    assert all(row[4] is None for row in table)  # it is not set beside itself


def test_a_recipe_beside_the_published_one(folder, capsys):
    assert main(["show", "mine.json"]) == 0
    out = capsys.readouterr().out
    saved = Recipe.load("mine.json").reduction
    assert out.startswith(f"mine.json: saves {saved:.1%} of the visual tokens' FLOPs\n")
    for fact in ("llava-hf/llava-1.5-7b-hf, revision b234b80", "60.0% asked, 60.12% reached, scoring paid for"):
        assert fact in out
    for fact in ("one-pass, alpha 0.25", "mini, 256 samples, digest 00ff", "fitprune-bench 0.1.0"):
        assert fact in out
    assert abs(saved - 0.596990) < abs(saved - 0.545040)  # so the one for 60 % is nearer than that for 55 %
    assert abs(saved - 0.596990) < abs(saved - 0.697220)
    assert "published llava-1.5-7b@60" in out
    assert [(layer, left, other) for layer, _, left, _, other in rows(out)] == list(
        zip(range(32), LEFT_MINE, LEFT_60, strict=True)
    )


def test_a_recipe_written_by_hand(folder, capsys):
    assert main(["show", "hand.json"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("hand.json: names no architecture, so what it saves is unknown\n")
    assert [row[:3] for row in rows(out)] == [(0, 3, 33), (1, 0, 33), (2, 33, 0)]
    assert [len(row[3]) for row in rows(out)] == [37, 37, 0]
    assert "published" not in out


def texts(picture):
    return ["".join(node.itertext()) for node in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]


def points(picture):
    """Per recipe the (layer, tokens) of every mark, as the picture describes itself to screen readers; and its shapes."""
    marks, shapes = defaultdict(list), defaultdict(set)
    for node in ElementTree.parse(picture).iter():
        if node.get("aria-roledescription") == "point":
            layer, left, recipe = re.fullmatch(r"[^:]*: (\d+); [^:]*: (\d+); recipe: (.*)", node.get("aria-label")).groups()
            marks[recipe].append((int(layer), int(left)))
            shapes[recipe].add((node.get("d"), node.get("fill"), node.get("stroke")))
    return marks, shapes


@pytest.mark.exhaustive
def test_a_picture_of_both(folder, capsys):
    assert main(["show", "mine.json", "-o", "picture.svg"]) == 0
    saved = Recipe.load("mine.json").reduction
    ours, theirs = f"mine, saves {saved:.1%}", "published llava-1.5-7b@60, saves 59.7%"
    marks, shapes = points(folder / "picture.svg")
    assert marks == {ours: list(enumerate(LEFT_MINE)), theirs: list(enumerate(LEFT_60))}
    said = texts(folder / "picture.svg")
    for text in (
        ours,
        theirs,
        "llava-hf/llava-1.5-7b-hf",
        f"saves {saved:.1%} of the visual tokens' FLOPs",
        "Decoder layer (the first is 0)",
        "Visual tokens left after the layer (number)",
        "unpruned: 576",
    ):
        assert said.count(text) == 1, text
    # Told apart without colour: one mark and one fill each, another for the other.
    ((shape, fill, _),), ((other_shape, other_fill, _),) = shapes[ours], shapes[theirs]
    assert shape != other_shape
    assert fill != other_fill == "white"
    lines = [
        node.get("stroke-dasharray")
        for node in ElementTree.parse(folder / "picture.svg").iter()
        if node.get("aria-roledescription") == "line mark"
    ]
    assert len(lines) == len(set(lines)) == 2


def test_a_picture_of_one(folder):
    assert main(["show", "published:llava-hr-7b@40", "-o", "picture.svg"]) == 0
    marks, _ = points(folder / "picture.svg")
    ((name, drawn),) = marks.items()
    assert name == "published llava-hr-7b@40, saves 38.8%"
    left = [1024 - dropped for dropped in itertools.accumulate(Recipe.published("llava-hr-7b", 40).drop)]
    assert drawn == list(enumerate(left))
    assert main(["show", "hand.json", "-o", "hand.svg"]) == 0
    assert dict(points(folder / "hand.svg")[0]) == {"hand": [(0, 33), (1, 33), (2, 0)]}


def test_a_picture_in_pixels(folder):
    from PIL import Image

    assert main(["show", "mine.json", "-o", "picture.PNG"]) == 0
    content = (folder / "picture.PNG").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert width >= 1200  # sharp in print at a column's width
    assert height >= 800
    colors = {color: count for count, color in Image.open(folder / "picture.PNG").convert("RGB").getcolors(1 << 20)}
    assert colors[255, 255, 255] > 0.7 * width * height  # a white page
    assert colors[0, 0x72, 0xB2] > 1000  # both curves
    assert colors[0xD5, 0x5E, 0] > 1000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent.json"], "cannot read the recipe absent.json"),
        (["published:llava-1.5-7b@61"], "there is no published recipe 'llava-1.5-7b@61'; there are llava-1.5-7b@10,20,"),
        (["hand.json", "-o", "picture.jpg"], "cannot draw to picture.jpg: the name must end in .png or .svg"),
        (["hand.json", "-o", "picture"], "must end in .png or .svg"),
        (["hand.json", "-o", "no/such/picture.svg"], "cannot draw to no/such/picture.svg: its folder does not exist"),
        (["hand.json", "-o", "folder.svg"], "cannot draw to folder.svg"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(folder, capsys, arguments, says):
    (folder / "folder.svg").mkdir()
    before = sorted(folder.iterdir())
    assert main(["show", *arguments]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert says in err
    assert out == ""
    assert sorted(folder.iterdir()) == before


def test_without_the_extra_there_are_words_but_no_pictures(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    assert main(["show", "hand.json"]) == 0
    assert "hand.json" in capsys.readouterr().out
    assert main(["show", "hand.json", "-o", "picture.svg"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "pip install '.[charts]'" in err
    assert not (folder / "picture.svg").exists()


@pytest.mark.exhaustive
def test_as_a_process(folder):
    command = [sys.executable, "-m", "fitprune", "show", "published:llava-1.5-7b@10", "-o", "picture.svg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "saves 6.4% of the visual tokens' FLOPs" in done.stdout
    assert "10.0% asked, 6.44% reached" in done.stdout
    assert (folder / "picture.svg").is_file()
