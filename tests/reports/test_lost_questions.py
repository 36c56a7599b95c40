"""The questions that pruning lost, on the page: how many, which, and how much room they get; and cells of a CSV."""

import csv
import io
import json
import math

import pytest

from harness.answering.evaluate import Answer, Answers
from harness.results.result import Result
from harness.results.store import Store
from reports.page import page
from reports.page.page import LOST_BYTES, page_data
from reports.table.leaderboard import read_leaderboard
from reports.table.rivals import LOST_SHOWN
from reports.writing.tabular import to_csv
from tests.support.boards import page_cells


def answers(scores):
    made = [Answer(i, f"image{i}", f"question {i}?", "a", "t", score) for i, score in enumerate(scores)]
    return Answers("gqa", "exact_match", 50.0, made, len(made), 0.0, "digest")


def write(folder, dense, pruned, **changes):
    fields = {
        **dict.fromkeys(("revision", "device"), "x"),
        **dict.fromkeys(("score", "dense_score", "drop", "flops", "dense_flops"), 1.0),
        **{"model": "m", "pruner": "fastv", "params": {}, "suite": "gqa", "metric": "exact_match", "drop_ci95": (0.0, 2.0)},
        **{"n": len(dense), "reduction": 0.5, "reduction_asked": 0.5, "latency_ms": None, "memory_mb": None, "versions": {}},
        **{"seed": 0, "date": "2026-01-01T00:00:00+00:00", "data": "mini"},
    }
    Store(folder).write(Result(**fields | changes), answers(pruned), answers(dense))
    return read_leaderboard(folder)


def cell_of(board):
    return page_cells(page_data(board))["gqa"]


def test_a_question_is_lost_where_the_dense_model_scored_higher_and_only_there(tmp_path):
    dense, pruned = [1, 1, 0, 0, 0.9, 0.3, math.nan, 1], [0, 1, 0, 1, 0.6, 0.9, 1, math.nan]
    cell = cell_of(write(tmp_path, dense, pruned))
    assert cell["lost"] == 3
    assert [example[0] for example in cell["examples"]] == ["question 0?", "question 4?", "question 7?"]


def test_equal_answers_lose_nothing(tmp_path):
    cell = cell_of(write(tmp_path, [1.0] * 4 + [0.0] * 21, [1.0] * 4 + [0.0] * 21))
    assert (cell["lost"], cell["examples"]) == (0, [])


@pytest.mark.exhaustive
def test_lost_questions_get_lost_bytes_and_their_number_stays(tmp_path, monkeypatch):
    board = write(tmp_path, [1.0] * 9, [0.0] * 9)
    assert LOST_BYTES == page.LOST_BYTES > 1_000_000
    shown = cell_of(board)["examples"]
    assert len(shown) == LOST_SHOWN
    size = sum(len(json.dumps(example)) for example in shown)
    for room, expected in ((size, LOST_SHOWN), (size - 1, LOST_SHOWN - 1), (0, 0)):
        monkeypatch.setattr(page, "LOST_BYTES", room)
        cell = cell_of(board)
        assert (len(cell["examples"]), cell["lost"]) == (expected, 9)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_text_of_the_csv_is_a_formula(tmp_path, start):
    board = write(tmp_path, [0.0], [1.0], command=f"{start}cmd|'/c calc'!A1")
    rows = list(csv.DictReader(io.StringIO(to_csv(board), newline="")))
    assert {row["command"] for row in rows} == {f"'{start}cmd|'/c calc'!A1".replace("\r", "\n"), ""}
    assert "-100.0" in {row["drop"] for row in rows}  # numbers stay numbers
