"""CSV, LaTeX, the comparison of two folders, the picture beside the Markdown."""

import csv
import io
import re
import xml.etree.ElementTree

import numpy as np
import pytest
import scipy.stats

from harness.results.computed import read_computed
from harness.results.store import Store
from reports.__main__ import main
from reports.table.leaderboard import read_leaderboard
from reports.writing.tabular import escape_latex, to_csv
from tests.support.boards import flips, put, refuse

pytestmark = pytest.mark.releases


@pytest.fixture
def folder(tmp_path):
    store = Store(tmp_path / "results")
    for suite in ("gqa", "pope"):
        for pruner in ("fastv", "random"):
            put(store, pruner, flips(0.8), suite, score_ci95=(70.0, 90.0), command="pytest a_b --x 50%")
    refuse(store.folder, reason="it saves at most 40 % & no more")
    return store.folder


def written(folder, option, name):
    path = folder.parent / name
    assert main([str(folder), option, str(path)]) == 0
    return path.read_text(encoding="utf-8")


def test_csv_has_every_figure_in_full(folder):
    lines = list(csv.DictReader(io.StringIO(written(folder, "--csv", "a.csv"))))
    assert len(lines) == 4 * 3  # dense, two methods, one refused; average and two suites
    results = {(result.pruner, result.suite): result for result in read_computed(Store(folder)).results}
    for line in lines:
        result = results.get((line["method"], line["suite"]))
        if result is not None:
            assert float(line["score"]) == result.score
            assert float(line["drop"]) == result.drop
            assert float(line["score_half_width"]) == pytest.approx((result.score_ci95[1] - result.score_ci95[0]) / 2)
            assert (line["n"], line["command"], line["date"]) == (str(result.n), result.command, result.date)
    average = next(line for line in lines if (line["method"], line["suite"]) == ("fastv", "average"))
    assert float(average["score"]) == pytest.approx(np.mean([results["fastv", suite].score for suite in ("gqa", "pope")]))
    assert float(average["vs_random_low"]) < float(average["vs_random"]) < float(average["vs_random_high"])
    assert average["vs_downsample"] == ""
    refused = next(line for line in lines if (line["method"], line["suite"]) == ("vtw", "gqa"))
    assert (refused["cannot"], refused["score"]) == ("it saves at most 40 % & no more", "")
    assert {line["pareto_optimal"] for line in lines} == {"true", "false"}


def test_csv_holds_no_formula(folder):
    refuse(folder, pruner="tome", reason="=HYPERLINK(1)")
    lines = list(csv.DictReader(io.StringIO(written(folder, "--csv", "a.csv"))))
    assert next(line["cannot"] for line in lines if line["method"] == "tome" and line["cannot"]) == "'=HYPERLINK(1)"


def test_latex_is_a_booktabs_table_whose_lines_have_equal_many_cells(folder):
    text = written(folder, "--latex", "a.tex")
    columns = re.search(r"\\begin\{tabular\}\{(lr*)\}", text)[1]
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + 4
    for line in lines:
        spanned = sum(int(width) - 1 for width in re.findall(r"\\multicolumn\{(\d+)\}", line))
        assert len(re.findall(r"(?<!\\)&", line)) + 1 + spanned == len(columns)
    assert r"vtw 0.9 & \multicolumn{11}{l}{cannot: it saves at most 40 \% \& no more} \\" in lines
    assert r"\midrule" in body
    assert text.isascii()


def test_latex_prints_what_it_is_given():
    assert escape_latex(r"a_b & 50 % \x{1}^~#$") == (
        r"a\_b \& 50 \% \textbackslash{}x\{1\}\textasciicircum{}\textasciitilde{}\#\$"
    )


def test_the_picture_has_a_mark_for_every_row(folder):
    written(folder, "--markdown", "a b.md")
    picture = folder.parent / "a b.svg"
    assert "](a%20b.svg)" in (folder.parent / "a b.md").read_text()
    tree = xml.etree.ElementTree.parse(picture)
    labels = [element.get("aria-label", "") for element in tree.iter() if element.get("aria-roledescription") == "point"]
    assert sorted(re.search(r"row: ([^;]+)", label)[1] for label in labels) == ["dense", "fastv 0.5", "random 0.5"]


def test_several_tables_have_a_picture_each(folder):
    put(Store(folder), "fastv", flips(0.5), data="other")
    text = written(folder, "--markdown", "a.md")
    assert "](a-1.svg)" in text
    assert "](a-2.svg)" in text
    assert (folder.parent / "a-2.svg").is_file()


def test_a_comparison_says_which_rows_changed_with_significance(tmp_path, capsys):
    """Against scipy's paired t-test: each question has an image of its own. Intervals are that or a little wider."""
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    old, new = flips(0.5), np.ones(80)
    put(here, "fastv", new, flops=0.5e9)
    put(there, "fastv", old, flops=1e9)
    put(here, "random", old)
    put(there, "random", old)
    put(there, "tome", old)
    put(here, "vtw", old[:70])  # another number of questions
    put(there, "vtw", old)
    assert main([str(here.folder), "--compare", str(there.folder)]) == 0
    lines = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in capsys.readouterr().out.splitlines() if "|" in line}
    expected = scipy.stats.ttest_rel(new, old).confidence_interval(0.95)
    half, mean = 50 * (expected.high - expected.low), 50 * (expected.high + expected.low)
    flops, prefill, average, gqa = (cell.strip() for cell in lines["fastv 0.5"])
    assert (flops, prefill, average) == ("0.50×", "–", gqa)
    shown, wide = gqa.split(" ± ")
    assert shown == f"▲ {mean:.1f}"
    assert half <= float(wide) <= 1.15 * half
    # No difference among 80 images: Clopper and Pearson's 1 - 0.025^(1/80).
    assert lines["random 0.5"][-1].strip() == f"≈ 0.0 ± {100 * (1 - 0.025 ** (1 / 80)):.1f}"
    assert "±" not in lines["vtw 0.5"][-1]
    assert "tome 0.5" not in lines


def test_a_comparison_names_what_only_one_has_and_goes_to_a_file(tmp_path):
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    put(here, "fastv", np.zeros(40))
    put(there, "fastv", np.ones(40), revision="new")
    put(there, "tome", np.ones(40), revision="new")
    assert main([str(here.folder), "--compare", str(there.folder), "--markdown", str(tmp_path / "c.md")]) == 0
    text = (tmp_path / "c.md").read_text()
    assert "only there: tome 0.5" in text
    assert "other weights: abc here, new there" in text
    assert "▼ −100.0" in text


def test_tables_of_equally_many_questions_are_compared(tmp_path, capsys):
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    put(here, "fastv", np.ones(30), limit=30)
    for limit in (30, 40):
        put(there, "fastv", np.ones(limit), limit=limit)
    assert main([str(here.folder), "--compare", str(there.folder)]) == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("## ")]
    assert headings == ["## llava-tiny, mini data, 30 questions a suite"]


def test_nothing_in_common_is_an_error(tmp_path, capsys):
    put(Store(tmp_path / "here"), "fastv", np.zeros(4))
    put(Store(tmp_path / "there"), "fastv", np.zeros(4), model="other")
    assert main([str(tmp_path / "here"), "--compare", str(tmp_path / "there")]) == 2
    assert "have no model and data in common: nothing to compare" in capsys.readouterr().err


def test_rows_that_differ_in_position_ids_alone_are_told_apart(tmp_path):
    store = Store(tmp_path)
    for positions in ("", "kept"):
        put(store, "divprune", np.ones(10), reduction=0.5, positions_asked=positions)
    board = read_leaderboard(tmp_path)
    lines = list(csv.DictReader(io.StringIO(to_csv(board))))
    own = [line for line in lines if line["method"] == "divprune" and line["suite"] == "gqa"]
    assert [line["positions_asked"] for line in own] == ["", "kept"]
    assert [row.name for row in board.boards[0].table.rows[1:]] == ["divprune 0.5", "divprune 0.5 ids kept"]
