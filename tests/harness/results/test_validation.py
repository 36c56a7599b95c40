"""What is said of a record on disk that is not as it should be: the field, its value, what was expected, in one line."""

import dataclasses
import json

import pytest

from fitprune.errors import FitPruneError
from harness.cells import Cell
from harness.gallery.file import FOLDER, check_scene
from harness.results.refusals import Refusal, read_refusals, write_refusal
from harness.results.result import Result
from tests.support.results import result

RESULT = result()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": "high"}, "score is 'high', not a valid number"),
        ({"score": True}, "score is True, not a valid number"),
        ({"drop_ci95": [1.0]}, r"lacks drop_ci95\[1\]"),
        ({"drop_ci95": [1.0, "x"]}, r"drop_ci95\[1\] is 'x', not a valid number"),
        ({"params": 3}, "params is 3, not a valid dictionary"),
        ({"n": 1.5}, "n is 1.5, not a valid integer"),
        ({"n": None}, "n is None, not a valid integer"),
        ({"model": ["m"]}, r"model is \['m'\], not a valid string"),
        ({"tokens_per_layer": [3.0, "few"]}, r"tokens_per_layer\[1\] is 'few', not a valid number"),
        ({"note": "x\ny", "seed": "a\nb"}, r"seed is 'a\\nb', not a valid integer"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(change, said):
    with pytest.raises(FitPruneError, match=f"^{said}$"):
        Result.from_json(RESULT.to_json() | change)


def test_every_missing_field_is_named():
    record = {name: value for name, value in RESULT.to_json().items() if name not in ("date", "drop", "note")}
    with pytest.raises(FitPruneError, match=r"^lacks date, drop$"):
        Result.from_json(record)


def test_numbers_that_do_not_exist_come_back_as_nan_and_whole_ones_as_they_are():
    nothing = dataclasses.replace(RESULT, drop=float("nan"), drop_ci95=(float("nan"),) * 2, tokens={"left": float("nan")})
    record = json.loads(json.dumps(nothing.to_json()))
    assert record["drop"] is record["tokens"]["left"] is None
    assert Result.from_json(record).to_json() == nothing.to_json()
    assert Result.from_json(RESULT.to_json() | {"score": 80}) == RESULT


CELL = Cell("m", "fastv", 0.9, "gqa")


def test_a_refusal_comes_back_as_it_was(tmp_path):
    write_refusal(tmp_path, CELL, "out\nof reach", data="mini", limit=8, command="pytest suites/")
    (read,), notes = read_refusals(tmp_path)
    assert not notes
    assert (read.cell, read.reason, read.data, read.limit) == (CELL, "out of reach", "mini", 8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reason": None}, "reason is None, not a valid string"),
        ({"reduction": "half"}, "reduction is 'half', not a valid number"),
        ({"limit": 2.5}, "limit is 2.5, not a valid integer"),
        ({"schema": 7}, "no record of a cell that could not run, of schema 1"),
    ],
)
def test_a_damaged_refusal_is_named_and_left_out(tmp_path, change, said):
    path = tmp_path / write_refusal(tmp_path, CELL, "out of reach", data="mini", limit=None, command="pytest suites/")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refusals, notes = read_refusals(tmp_path)
    assert not refusals
    assert notes == [f"cannot/{path.name} is damaged and left out: {said}"]


def test_a_refusal_that_lacks_fields_names_them():
    record = Refusal(CELL, "r", "mini", None, "c", "2026").to_json()
    del record["date"], record["model"]
    with pytest.raises(FitPruneError, match=r"^lacks date, model$"):
        Refusal.from_json(record)


SCENE = {
    "schema": 1,
    "kind": FOLDER,
    **dict.fromkeys(("model", "suite", "question", "target", "command"), "x"),
    "tokens": 8,
    "views": [{"label": "", "columns": 4, "rows": 2, "picture": "data:image/png;base64,"}],
    "dense": {"answer": "yes", "score": 1.0},
}
KEPT = {"pruner": "x", "answer": "a", "tokens": 8, "masks": ["ff"], "layers": [0], "left": [8]}


def test_a_scene_is_handed_on_as_it_is():
    scene = {**SCENE, "pruned": [KEPT, {"pruner": "y", "cannot": "too much"}]}
    assert check_scene(scene) is scene


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": 3}, "question is 3, not a valid string"),
        ({"tokens": 9}, "its views have fewer patches than the prompt's 9 visual tokens"),
        ({"views": [{"columns": 4, "rows": 2, "picture": "http://elsewhere"}]}, "views[0].picture: not an embedded PNG"),
        ({"dense": {}}, "lacks dense.answer"),
        ({"pruned": [KEPT | {"masks": ["f"]}]}, "pruned[0].kept: non-hexadecimal number found in fromhex() arg at position 1"),
        ({"pruned": [KEPT | {"masks": ["ffff"]}]}, "pruned[0].kept: a mask of 4 digits for 8 tokens"),
        ({"pruned": [KEPT | {"layers": [1]}]}, "pruned[0].kept: layers without a mask"),
        ({"pruned": [KEPT | {"left": []}]}, "pruned[0].kept: layers without a mask"),
        ({"pruned": [{"cannot": 3}]}, "pruned[0].cannot.cannot is 3, not a valid string"),
    ],
)
def test_a_damaged_scene_says_where(change, said):
    with pytest.raises(FitPruneError) as refused:
        check_scene({**SCENE, "pruned": [KEPT]} | change)
    assert str(refused.value) == said
