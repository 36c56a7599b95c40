"""`--difficulty`: which questions a downsampled model still answers, and what each row loses on the rest."""

import csv
import io

import pytest

from fitprune import FitPruneError
from harness.answers import F1
from harness.results.store import Store
from reports.__main__ import main
from reports.table.leaderboard import read_leaderboard
from tests.support.boards import answers_with, put
from tests.support.results import result

EASIER = [1.0] * 40 + [0.0] * 30 + [0.4] * 10  # half of the questions; a graded score below a half is no answer
ROW = [0.0] * 10 + [1.0] * 38 + [0.0] * 32


@pytest.fixture
def folder(tmp_path):
    store = Store(tmp_path / "results")
    put(store, "downsample", EASIER, reduction=0.7)
    put(store, "fastv", ROW, reduction=0.7)
    put(store, "random", [1.0] * 80, reduction=0.7)
    return tmp_path / "results"


def rests_of(folder):
    (board,) = read_leaderboard(folder, difficulty=True).boards
    return {row.name: rests for row, rests in zip(board.table.rows, board.difficulty.rests, strict=True)}, board


def test_the_share_that_is_answered_and_the_drop_on_the_rest(folder):
    rests, board = rests_of(folder)
    fastv = rests["fastv 0.7"]["gqa"]
    assert (fastv.by, fastv.answered, fastv.questions) == ("downsample 0.7", 0.5, 40)
    assert fastv.drop.points == pytest.approx(100 * 32 / 40)  # of all questions it loses 42 of 80
    assert fastv.drop.low < 80 < fastv.drop.high <= 100
    assert rests["random 0.7"]["gqa"].drop.points == 0
    assert rests["dense"] == rests["downsample 0.7"] == {}
    assert board.difficulty.average(list(rests).index("fastv 0.7")).points == pytest.approx(80)
    lines = {name: texts for name, *texts in board.difficulty.lines}
    assert list(lines) == ["downsample 0.7 still answers", "random 0.7", "fastv 0.7"]
    assert lines["downsample 0.7 still answers"][1] == "50%"
    assert lines["fastv 0.7"][1].startswith("80.0 ± ")
    assert lines["fastv 0.7"][1].endswith(" (40)")


def test_the_nearest_downsampled_model_is_taken(folder):
    put(Store(folder), "downsample", [1.0] * 60 + [0.0] * 20, reduction=0.4)
    put(Store(folder), "vtw", ROW, reduction=0.45)
    rests, _ = rests_of(folder)
    assert (rests["vtw 0.45"]["gqa"].by, rests["vtw 0.45"]["gqa"].questions) == ("downsample 0.4", 20)
    assert rests["fastv 0.7"]["gqa"].by == "downsample 0.7"


def test_where_everything_is_answered_nothing_is_left(tmp_path):
    put(Store(tmp_path), "downsample", [1.0] * 80)
    put(Store(tmp_path), "fastv", ROW)
    rests, board = rests_of(tmp_path)
    assert (rests["fastv 0.5"]["gqa"].answered, rests["fastv 0.5"]["gqa"].drop) == (1.0, None)
    assert board.difficulty.lines[1][1:] == ["–", "– (0)"]


def test_questions_without_a_score_take_no_part(tmp_path):
    put(Store(tmp_path), "downsample", [float("nan")] * 40 + [0.0] * 20 + [1.0] * 20)
    put(Store(tmp_path), "fastv", ROW)
    rests, _ = rests_of(tmp_path)
    assert (rests["fastv 0.5"]["gqa"].answered, rests["fastv 0.5"]["gqa"].questions) == (0.5, 20)


def test_any_metric_is_the_mean_of_its_questions_on_the_rest(tmp_path):
    store = Store(tmp_path)
    for pruner, scores in (("downsample", EASIER), ("fastv", ROW)):
        own, dense = answers_with(scores, "pope"), answers_with([1.0] * 80, "pope")
        changed = {"metric": "pope_f1_score", "statistic": F1, "data": "mini", "n": 80, "suite": "pope"}
        store.write(result(pruner=pruner, score=50.0, **changed), own, dense)
    rests, _ = rests_of(tmp_path)
    assert rests["fastv 0.5"]["pope"].drop.points == pytest.approx(80)


def test_answers_that_are_gone_are_named(folder):
    (path,) = folder.glob("*fastv*.answers.jsonl")
    path.unlink()
    rests, board = rests_of(folder)
    assert rests["fastv 0.7"] == {}
    assert board.difficulty.notes[1].startswith("not compared: fastv 0.7 on gqa: ")


def test_other_questions_are_not_compared(folder):
    put(Store(folder), "vtw", ROW[:60], reduction=0.6)
    rests, board = rests_of(folder)
    assert rests["vtw 0.6"] == {}
    assert "vtw 0.6 on gqa: it was asked other questions than downsample 0.7" in board.difficulty.notes[1]


def test_without_a_downsampled_model_it_is_one_line(tmp_path, capsys):
    put(Store(tmp_path / "results"), "fastv", ROW)
    with pytest.raises(FitPruneError, match="--model llava-tiny --pruner downsample --reduction R"):
        read_leaderboard(tmp_path / "results", difficulty=True)
    assert main([str(tmp_path / "results"), "--difficulty"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([str(tmp_path / "results")]) == 0


def test_markdown_and_csv_have_it_on_request(folder, tmp_path, capsys):
    assert main([str(folder), "--csv", str(tmp_path / "plain.csv")]) == 0
    assert "rest_drop" not in (tmp_path / "plain.csv").read_text()
    assert main([str(folder), "--difficulty"]) == 0
    printed = capsys.readouterr().out
    assert "### Drop on the questions that downsampling does not answer" in printed
    assert "| downsample 0.7 still answers | –" in printed
    assert main([str(folder), "--difficulty", "--csv", str(tmp_path / "all.csv")]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text())))
    found = {(row["method"], row["suite"]): row for row in rows}
    assert float(found["fastv", "gqa"]["rest_drop"]) == pytest.approx(80)
    assert float(found["fastv", "average"]["rest_drop"]) == pytest.approx(80)
    assert found["fastv", "gqa"]["easier"] == "downsample 0.7"
    assert (found["fastv", "gqa"]["answered_by_easier"], found["fastv", "gqa"]["rest_n"]) == ("0.5", "40")
    assert found["dense", "gqa"]["rest_drop"] == found["downsample", "gqa"]["rest_drop"] == ""


@pytest.mark.parametrize("more", [["--latex", "t.tex"], ["--compare", "other"]])
def test_where_it_has_no_effect_it_is_refused_in_one_line(folder, more, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([str(folder), "--difficulty", *more]) == 2
    assert "--difficulty adds to the leaderboard in Markdown, as CSV and on the page" in capsys.readouterr().err
    assert not (tmp_path / more[1]).exists()
