"""The leaderboards: what is bold, what is escaped, what is refused."""

import json
import re
import sys

import numpy as np
import pytest

from harness.answering.evaluate import Answer
from harness.results.store import Store
from reports.__main__ import main
from tests.support.boards import answers_with, page_cells
from tests.support.results import answers, result

pytestmark = pytest.mark.releases
SWEEP = [("fitprune", 88.0), ("fastv", 84.0), ("random", 70.0)]


def right(count):
    """Answers to 100 questions, of which so many are right."""
    return answers_with(np.arange(100) < count)


@pytest.fixture
def folder(tmp_path):
    """Three pruners at two reductions on two suites, and the dense model on one of them."""
    store = Store(tmp_path / "results")
    for suite in ("gqa", "pope"):
        for pruner, score in SWEEP:
            for reduction in (0.3, 0.5):
                store.write(
                    result(
                        pruner=pruner,
                        suite=suite,
                        reduction_asked=reduction,
                        reduction=reduction,
                        score=score,
                        gate="significant",
                        verdict="made anew",
                        max_drop=5.0,
                        latency_ms={"prefill_ratio": 0.5, "processes": 2},
                        data="mini",
                        note="seen | noted",
                    ),
                    right(score),
                    right(90),
                )
    dense = result(
        pruner="dense", params={}, reduction_asked=None, reduction=0, score=90.0, drop=0.0, drop_ci95=(0, 0), data="mini"
    )
    store.write(dense, right(90))
    return store.folder


def rows_of(markdown):
    """The first table: its header and its lines."""
    lines = [line for line in markdown.partition("## Published")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in (lines[0], *lines[2:])]


def test_the_leaderboard_in_markdown(folder, tmp_path, capsys):
    assert main([str(folder), "--markdown", str(tmp_path / "board.md")]) == 0
    text = (tmp_path / "board.md").read_text()
    head, dense, *rows = rows_of(text)
    assert head == [
        "method",
        "average",
        "worst suite",
        "saved",
        "time, of dense (CPU)",
        "GFLOPs",
        "of dense",
        "vs random",
        "vs downsample",
        "GQA",
        "POPE",
        "servable in",
    ]
    assert dense[:7] == ["dense ◆", "90.0", "–", "0.0%", "1.00", "2.00", "100%"]
    # By reduction, then by average.
    assert [row[0].removesuffix(" ◆") for row in rows] == [f"{pruner} {r}" for r in (0.3, 0.5) for pruner, _ in SWEEP]
    best = {row[0] for row in rows if row[9].startswith("**")}
    assert best == {"fitprune 0.3 ◆", "fitprune 0.5 ◆"}
    assert next(row for row in rows if row[0] == "fitprune 0.5 ◆")[3:7] == ["50.0%", "~0.50", "1.00", "50%"]
    assert re.search(r"\*\*88\.0 \(2\.0 ± \d\.\d\)\*\*", text)
    assert re.search(r"70\.0 \(20\.0 ± \d\.\d\) ✗", text)
    assert "Miller 2024" in text
    assert "seen \\| noted" in text
    assert "up to 2 processes" in text
    command = "pytest --pyargs suites.test_gqa suites.test_pope --model llava-tiny --pruner "
    assert command in text
    assert "--reduction 0.3,0.5 --max-drop 5" in text
    assert capsys.readouterr() == ("", "")


def test_without_a_file_it_is_printed(folder, capsys):
    assert main([str(folder)]) == 0
    assert "## llava-tiny, mini data" in capsys.readouterr().out


def test_the_page_shows_what_a_model_answered_and_runs_none_of_it(tmp_path):
    store = Store(tmp_path)
    evil = "<script>alert(1)</script>"
    dense, pruned = answers(), answers(score=0.0)
    pruned.answers = [Answer(a.doc_id, a.image, evil, evil, evil, 0.0) for a in pruned.answers]
    store.write(result(model=evil, note=evil), pruned, dense)
    assert main([str(tmp_path), "--html", str(tmp_path / "board.html")]) == 0
    page = (tmp_path / "board.html").read_text()
    assert evil not in page
    assert page.count("<script") == page.count("</script>") == 3  # the data, the chart runtime, ours
    data = data_of(page)
    cell = page_cells(data)["gqa"]
    assert (cell["lost"], cell["examples"]) == (3, [[evil, evil, "yes", evil]] * 3)
    assert data["texts"][cell["note"]] == evil
    assert data["tables"][0]["model"] == evil
    assert not re.search(r"(src=|<link\b[^>]*href=)[\"']?(http|//)", page)  # a link for people asks nobody
    assert "default-src 'none'" in page


def test_the_page_of_a_large_folder_cuts_what_it_quotes(tmp_path, monkeypatch):
    monkeypatch.setattr("reports.page.page.LOST_BYTES", 4000)
    store = Store(tmp_path)
    long = "word " * 200
    pruned = answers(8, score=0.0)
    pruned.answers = [Answer(a.doc_id, a.image, long, long, long, 0.0) for a in pruned.answers]
    for suite in ("gqa", "pope"):
        store.write(result(suite=suite), pruned, answers(8))
    assert main([str(tmp_path), "--html", str(tmp_path / "a.html")]) == 0
    cells = page_cells(data_of((tmp_path / "a.html").read_text()))
    assert [cell["lost"] for cell in cells.values()] == [8, 8]
    quoted = [example for cell in cells.values() for example in cell["examples"]]
    assert 0 < len(json.dumps(quoted)) <= 4000 + 100
    assert quoted[0][0] == long[:300] + "…"


def data_of(page):
    """What the page brings along for its script."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_both_at_once(folder, tmp_path):
    assert main([str(folder), "--markdown", str(tmp_path / "a.md"), "--html", str(tmp_path / "a.html")]) == 0
    assert (tmp_path / "a.md").stat().st_size > 500
    assert len(data_of((tmp_path / "a.html").read_text())["rows"]) == 7
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert "](a.svg)" in (tmp_path / "a.md").read_text()


def test_a_folder_gets_an_index(folder, tmp_path):
    assert main([str(folder), "--html", str(tmp_path / "site")]) == 0
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["index.html"]


def test_without_the_extra_charts_there_are_tables(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "altair", None)
    assert main([str(folder), "--markdown", str(tmp_path / "a.md"), "--html", str(tmp_path / "a.html")]) == 0
    said = capsys.readouterr().err
    assert said == "reports: no charts: they need the extra charts, python -m pip install '.[charts]'\n"
    assert not (tmp_path / "a.svg").exists()
    assert "![" not in (tmp_path / "a.md").read_text()
    assert data_of((tmp_path / "a.html").read_text())["charts"] == {}


def test_a_damaged_file_is_named_and_the_rest_shown(folder, tmp_path, capsys):
    (folder / "broken.json").write_text('{"schema": 1')
    assert main([str(folder), "--markdown", str(tmp_path / "a.md")]) == 0
    said = capsys.readouterr().err
    assert said.startswith("reports: broken.json is damaged and left out")
    assert said.count("\n") == 1
    assert "broken.json is damaged" in (tmp_path / "a.md").read_text()


def test_lost_answers_do_not_stop_the_page(folder, tmp_path):
    for path in folder.glob("*.answers.jsonl"):
        path.unlink()
    assert main([str(folder), "--html", str(tmp_path / "a.html")]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "results folder nowhere does not exist"),
        (["empty"], "no results in empty; pytest suites/ --results writes them"),
        (["broken"], "no results in broken: x.json is damaged and left out"),
        (
            ["results", "--markdown", "no/such/folder/a.md", "--html", "a.html"],
            "cannot write no/such/folder/a.md: its folder does not exist",
        ),
        (["results", "--markdown", "empty", "--html", "a.html"], "cannot write empty: it is a folder"),
        (["results", "--html", "no/such/site"], "cannot write no/such/site/index.html: its folder does not exist"),
        (["results", "--html", "a.txt"], "--html a.txt is named like another kind of file; end it in .html"),
        (["results", "--csv", "a.csv", "--latex", "no/a.tex"], "cannot write no/a.tex: its folder does not exist"),
        (["results", "--markdown", "a.md", "--compare", "empty"], "no results in empty"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folder, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "empty").mkdir()
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "x.json").write_text("{")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == ["broken", "empty", "results"]
