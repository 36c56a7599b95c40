"""The mean over one model's seeds: against figures worked out by hand, and what does not hold on all of them."""

from dataclasses import replace

import numpy as np
import pytest

from harness.models.registry import MODELS, find_model
from harness.results.store import Store
from reports.__main__ import main
from reports.table.leaderboard import read_leaderboard
from reports.table.seeds import seed_tables
from reports.writing.markdown import to_markdown
from tests.support.boards import put
from tests.support.browser import Browser, needs_chromium

RIGHT = {"llava-tiny": {"random": 50, "a": 90, "b": 90, "c": 50}, "seed-b": {"random": 40, "a": 80, "b": 40, "c": 30}}
"""Of 100 questions, each with an image of its own."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two seeds with three methods and random pruning; the first has another method besides."""
    monkeypatch.setitem(MODELS, "seed-b", replace(find_model("llava-tiny"), name="seed-b", seed_of="llava-tiny"))
    store = Store(tmp_path)
    for model, methods in RIGHT.items():
        for method, right in methods.items():
            put(store, method, np.repeat([1.0, 0.0], [right, 100 - right]), model=model, dense_score=100.0)
    put(store, "alone", np.ones(100), model="llava-tiny", dense_score=100.0)
    return tmp_path


def lines_of(folder):
    (table,) = seed_tables(read_leaderboard(folder).boards)
    return table.heading, {line[0]: line[1:] for line in table.lines}


def test_rows_that_every_seed_has_are_averaged(folder):
    heading, lines = lines_of(folder)
    assert heading == "llava-tiny, seed-b: the mean over seeds"
    assert lines.keys() == {"dense", "random 0.5", "a 0.5", "b 0.5", "c 0.5"}
    assert lines["a 0.5"][0] == "85.0"
    assert lines["b 0.5"][2] == "40.0 … 90.0"
    assert lines["dense"][3:] == ["–", "–"]


def test_the_interval_is_the_widest_of_the_seeds(folder):
    boards = read_leaderboard(folder).boards
    rows = [next(row for row in board.table.rows if row.name == "b 0.5") for board in boards]
    narrow, wide = (row.figure("gqa").half_width for row in rows)
    assert 5 < narrow < wide < 12
    assert lines_of(folder)[1]["b 0.5"][1] == f"± {wide:.1f}"
    assert lines_of(folder)[1]["dense"][1] == "–"  # of records that say nothing of it


def test_a_claim_that_does_not_hold_on_all_seeds_is_marked(folder):
    """Against random pruning a is ahead by 40 on both; b by 40 and by 0; c by 0, and behind by 10."""
    lines = lines_of(folder)[1]
    assert lines["a 0.5"][4].startswith("▲ 40.0 ± ")
    assert lines["b 0.5"][4] == "20.0: ▲ on 1, ≈ on 1"
    assert lines["c 0.5"][4] == "−5.0: ≈ on 1, ▼ on 1"


def test_the_leaderboard_shows_them_after_the_tables(folder):
    text = to_markdown(read_leaderboard(folder))
    assert text.index("## seed-b, mini data") < text.index("## llava-tiny, seed-b: the mean over seeds")
    assert "lowest and the highest" in text


@needs_chromium
@pytest.mark.exhaustive
def test_the_page_shows_them_where_there_are_seeds(folder, tmp_path, monkeypatch):
    (table,) = seed_tables(read_leaderboard(folder).boards)
    monkeypatch.chdir(tmp_path)
    assert main([str(folder), "--html", "seeds.html"]) == 0
    monkeypatch.setitem(MODELS, "seed-b", replace(MODELS["seed-b"], seed_of=""))
    assert main([str(folder), "--html", "apart.html"]) == 0
    with Browser() as browser:
        page = browser.open(tmp_path / "seeds.html")
        assert [error for error in page.errors if "WARN" not in error] == []  # Vega warns of records without intervals
        assert page.evaluate("document.querySelector('#seeds').checkVisibility()")
        assert page.evaluate("document.querySelector('#seeds h3').innerText") == table.heading
        cells = "[...document.querySelectorAll('#seeds tr')].map(r => [...r.children].map(c => c.innerText))"
        assert page.evaluate(cells) == [list(table.columns), *table.lines]
        assert page.evaluate("[...document.querySelectorAll('#seeds .note')].map(n => n.innerText)") == list(table.notes)
        assert browser.open(tmp_path / "apart.html").evaluate("document.querySelector('#seeds').hidden") is True


def test_models_that_are_no_seeds_of_one_are_not_averaged(folder, monkeypatch):
    monkeypatch.setitem(MODELS, "seed-b", replace(MODELS["seed-b"], seed_of=""))
    assert seed_tables(read_leaderboard(folder).boards) == []
    assert "mean over seeds" not in to_markdown(read_leaderboard(folder))
