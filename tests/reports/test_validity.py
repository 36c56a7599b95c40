"""How well a table foretells printed ones: against scipy and against figures worked out by hand."""

import re
import xml.etree.ElementTree
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from harness.models.registry import MODELS, find_model
from harness.models.shipped import transformers_config
from harness.pruners.solve import solve
from harness.published.tables import PublishedRow, PublishedTable, Setting
from harness.results.store import Store
from harness.results.texts import number
from reports.__main__ import main
from reports.charts import charts
from reports.table.leaderboard import read_leaderboard
from reports.validity import agreement
from reports.validity.agreement import (
    agreements,
    bootstrap,
    compared,
    everywhere_ahead,
    measured_retained,
    pooled,
    spearman,
)
from reports.validity.as_printed import asked_as_printed
from tests.support.boards import put

FULL, LEFT = Setting("576 tokens", tokens=576), Setting("64 tokens", tokens=64)


def row(method, setting=LEFT, **values):
    return PublishedRow(method, setting, {name: str(value) for name, value in values.items()})


ONE = PublishedTable(
    "one",
    "One, Table 1",
    "large",
    576,
    {},
    (
        row("dense", FULL, gqa=50, pope=80, scienceqa=70),
        row("a", Setting("128 tokens", tokens=128), gqa=1, pope=1),
        row("a", gqa=25, pope=80, scienceqa=1),
        row("b", gqa=40, pope=60, scienceqa=1),
        row("c", gqa=20, pope=20, scienceqa=70),
        row("fastv", gqa=10, pope=40, vqav2=39),
        row("nowhere else", gqa=1, pope=1),
    ),
)
OTHER = PublishedTable(
    "other",
    "Other, Table 2",
    "large",
    576,
    {},
    (
        row("dense", FULL, vqav2=78),
        row("a", gqa=25, vqav2=78),
        row("b", gqa=50, vqav2=39),
        row("c", gqa=5, vqav2=39),
        row("fastv", gqa=10, vqav2=39),
        row("nowhere else", gqa=1),
        row("d", vqav2=78),
    ),
)
BIG = PublishedTable("big", "Big", "larger", 576, {}, ONE.rows)
CANNOT = PublishedTable("cannot", "Cannot", "large", 576, {}, ONE.rows, cannot="of several images")


@pytest.fixture(autouse=True)
def printed(monkeypatch):
    monkeypatch.setattr(agreement, "tables", lambda: {table.name: table for table in (ONE, OTHER, BIG, CANNOT)})


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipys_with_and_without_ties(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.random(9), rng.integers(4, size=9).astype(float)
    assert spearman(one, other) == pytest.approx(scipy.stats.spearmanr(one, other).statistic)
    assert spearman(one, one**3) == pytest.approx(1)
    assert np.isnan(spearman(one, np.ones(9)))


def test_the_interval_is_a_bootstrap_over_methods():
    """Against scipy's own, which draws otherwise."""
    rng = np.random.default_rng(1)
    one = rng.random(12)
    other = one + 0.4 * rng.random(12)
    low, high = bootstrap(one, other)
    theirs = scipy.stats.bootstrap(
        (one, other),
        lambda x, y: scipy.stats.spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.06)
    assert bootstrap([1, 2, 3], [1, 2, 3]) == pytest.approx((1, 1))


def test_each_printed_table_is_a_scale_of_its_own():
    """In `one` a retains (50 + 100) / 2, b (80 + 75) / 2, c (40 + 25) / 2, FastV (20 + 50) / 2; in `other`, whose dense GQA is
    `one`'s, a (50 + 100) / 2, b (100 + 50) / 2, c (10 + 50) / 2, FastV (20 + 50) / 2.
    """
    found = agreements({"a": 60.0, "b": 50.0, "c": 5.0, "fastv": 4.0, "unprinted": 1.0}, "large", 64)
    assert [(each.table.name, each.printed) for each in found] == [
        ("one", {"fastv": 35, "c": 32.5, "b": 77.5, "a": 75}),
        ("other", {"fastv": 35, "c": 30, "b": 75, "a": 75}),
    ]
    # Places in print b, a, FastV, c; here a, b, c, FastV: 1 - 6 · 4 / (4 · 15).
    assert found[0].rho == pytest.approx(0.6)
    assert found[1].rho == pytest.approx(scipy.stats.spearmanr([35, 30, 75, 75], [4, 5, 50, 60]).statistic)
    # In both: a, b, c, FastV and one that is not measured here, whose columns in common are GQA, and GQA and POPE.
    first, second = [75, 77.5, 32.5, 35, 1.625], [50, 100, 10, 20, 2]
    assert found[0].ceiling == {"other": (pytest.approx(scipy.stats.spearmanr(first, second).statistic), 5)}
    assert everywhere_ahead(found, "fastv") == {"a", "b"}
    assert agreements({"a": 1.0, "b": 2.0}, "large", 64) == []
    assert pooled({"a": 1.0, "c": 0.0, "d": 2.0}, "large", 64) == {
        "a": (75 + 100) / 2,  # with d, `other` has VQAv2 alone in common
        "c": (32.5 + 50) / 2,
        "d": 100,
    }


@pytest.fixture
def folder(tmp_path):
    """What is left of 100: of GQA and of POPE, in ScienceQA all; FastV in the middle, random pruning on top."""
    store = Store(tmp_path / "results")
    for method, gqa, pope in (("a", 60, 40), ("b", 80, 40), ("c", 10, 20), ("fastv", 40, 60), ("random", 65, 65)):
        for suite, right in (("gqa", gqa), ("pope", pope), ("scienceqa", 100)):
            scores = np.repeat([1.0, 0.0], [right, 100 - right])
            put(store, method, scores, suite, reduction=0.89, dense_score=100.0)
            put(store, method, scores, suite, reduction=0.5, dense_score=100.0)
            put(store, method, np.zeros(100), suite, reduction=0.89, dense_score=100.0, positions_asked="kept")
    return store.folder


def test_what_is_measured_is_at_the_asked_reduction_with_the_authors_ids(folder):
    table = read_leaderboard(folder).boards[0].table
    expected = {"a": 50, "b": 60, "c": 15, "fastv": 50, "random": 65}
    assert measured_retained(table, 0.89) == pytest.approx(expected)
    assert measured_retained(table, 0.7) == {}


def test_of_two_suites_for_a_printed_column_the_one_that_asks_as_papers_do_counts(tmp_path):
    """TextVQA with OCR tokens in the prompt before TextVQA without, POPE's F1 before its accuracy; ScienceQA never."""
    store = Store(tmp_path / "results")
    for suite, right in (("textvqa", 0), ("textvqa-ocr", 80), ("pope", 10), ("pope-f1", 60), ("scienceqa", 100)):
        put(store, "a", np.repeat([1.0, 0.0], [right, 100 - right]), suite, reduction=0.89, dense_score=100.0)
    table = read_leaderboard(store.folder).boards[0].table
    assert sorted(compared(table)) == ["pope-f1", "textvqa-ocr"]
    assert measured_retained(table, 0.89) == pytest.approx({"a": 70})


def seeded(folder, monkeypatch):
    """A second seed beside the folder's model: a and c change places, FastV is ahead of b, and d is on this seed alone."""
    monkeypatch.setitem(MODELS, "seed-b", replace(find_model("llava-tiny"), name="seed-b", seed_of="llava-tiny"))
    store = Store(folder)
    for method, gqa, pope in (("a", 10, 20), ("b", 10, 10), ("c", 60, 40), ("d", 1, 1), ("fastv", 40, 60), ("random", 5, 5)):
        for suite, right in (("gqa", gqa), ("pope", pope), ("scienceqa", 100)):
            scores = np.repeat([1.0, 0.0], [right, 100 - right])
            put(store, method, scores, suite, reduction=0.89, dense_score=100.0, model="seed-b")


def test_seeds_of_one_model_are_averaged_and_shown_side_by_side(folder, monkeypatch, capsys):
    monkeypatch.setattr("harness.published.tables.tables", agreement.tables)
    seeded(folder, monkeypatch)
    assert main(["validity", str(folder), "--model", "large", "--reduction", "0.89"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# llava-tiny, seed-b, mini data, against large")
    printed = [35, 32.5, 77.5, 75]  # FastV, c, b, a, in `one`
    each = {"llava-tiny": [50, 15, 60, 50], "seed-b": [50, 50, 10, 15], "mean of their scores": [50, 32.5, 35, 32.5]}
    for name, here in each.items():
        rho = scipy.stats.spearmanr(printed, here).statistic
        assert re.search(rf"\| {name} +\| {number(rho, '.2f')} +\|", text), name
    assert re.search(r"\| a +\| 75\.0 → 32\.5 .*\| 15\.0 … 50\.0 +\|", text)
    assert not re.search(r"\| d +\|", text)
    ahead = "- Behind fastv here (50.0), though ahead of it in every printed table that has both: "
    assert ahead + "a (on 1 of 2 seeds), b (on 1 of 2 seeds).\n" in text
    assert "- Behind random here (35.0), though printed: a (on 1 of 2 seeds), b (on 1 of 2 seeds)," in text


def test_a_comparison_can_be_on_some_suites_alone(folder, monkeypatch, capsys):
    """Of POPE alone a, b, c and FastV retain 40, 40, 20 and 60."""
    monkeypatch.setattr("harness.published.tables.tables", agreement.tables)
    command = ["validity", str(folder), "--model", "large", "--reduction", "0.89", "--suite"]
    assert main([*command, "pope"]) == 0
    text = capsys.readouterr().out
    assert "on POPE, against tables" in text
    rho = scipy.stats.spearmanr([35, 32.5, 77.5, 75], [60, 20, 40, 40]).statistic
    assert re.search(rf"\| One, Table 1 +\| 4 +\| {number(rho, '.2f')} +\|", text)
    assert main([*command, "pope,mme"]) == 2
    assert capsys.readouterr().err == "error: llava-tiny has no score on mme there; it has gqa, pope, scienceqa\n"
    assert main([*command, "pop"]) == 2
    assert "unknown suite 'pop'" in capsys.readouterr().err


def test_rows_as_printed_have_each_methods_own_parameters_for_the_tokens(tmp_path):
    """64 of 576 tokens are 16 of llava-tiny's 144: DART's parameter of that value, so many tokens that enter the decoder, and
    the FLOPs of so many in every layer for FitPrune. FastV's budget is the mean over layers: with K = 2 of 8 layers,
    (2·144 + 6·k) / 8 = 16 has no k. Rows with other position ids, or near the mark, are none.
    """
    store, config = Store(tmp_path / "results"), transformers_config(find_model("llava-tiny"))
    grid = {"dart": (0.62, 0.64, 0.66, 0.68), "random": (0.9, 0.91, 0.92), "divprune": (0.89, 0.9), "fastv": (0.7,)}
    for method, right in {"dart": 50, "random": 40, "divprune": 70, "fastv": 10}.items():
        for reduction in grid[method]:
            scores = np.repeat([1.0, 0.0], [right, 100 - right])
            put(store, method, scores, reduction=reduction, dense_score=100.0)
            put(store, method, scores - scores, reduction=reduction, dense_score=100.0, positions_asked="kept")
    macs = [n * (4 * 128**2 + 3 * 128 * 256) + 2 * n * n * 128 for n in (16, 144)]
    exact = round(1 - macs[0] / macs[1], 4)
    for reduction in (exact, 0.89, 0.91):
        put(store, "fitprune", np.ones(100), reduction=reduction, dense_score=100.0)
    table = read_leaderboard(store.folder).boards[0].table
    asked = asked_as_printed(table, "large", 64, config, 144)
    assert asked["fitprune"] == exact
    assert "fastv" not in asked
    assert solve("dart", asked["dart"], config, visual_tokens=144).max_num_trunction == 16
    assert solve("dart", asked["dart"] + 0.02, config, visual_tokens=144).max_num_trunction != 16
    assert round(144 * (1 - solve("random", asked["random"], config, visual_tokens=144).ratio)) == 16
    assert "divprune" not in asked  # its ratio is another one between 0.90 and 0.91
    assert measured_retained(table, asked) == pytest.approx({"dart": 50, "random": 40, "fitprune": 100})
    assert asked_as_printed(table, "large", 65, config, 144) == {}


def test_the_page_says_what_is_wrong_method_by_method(folder, capsys):
    assert main(["validity", str(folder), "--model", "large"]) == 2
    assert "unknown model of a printed table 'large'" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_the_page_and_its_picture(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("harness.published.tables.tables", agreement.tables)
    path = tmp_path / "validity.md"
    command = ["validity", str(folder), "--model", "large", "--reduction", "0.89", "--markdown"]
    assert main([*command, str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    rho = scipy.stats.spearmanr([35, 32.5, 77.5, 75], [50, 15, 60, 50]).statistic
    low, high = bootstrap([35, 32.5, 77.5, 75], [50, 15, 60, 50])
    ceiling = scipy.stats.spearmanr([75, 77.5, 32.5, 35, 1.625], [50, 100, 10, 20, 2]).statistic
    assert re.search(rf"\| One, Table 1 +\| 4 +\| {rho:.2f} +\| {low:.2f} … {high:.2f} +\| other {ceiling:.2f} \(5\) +\|", text)
    assert "none, for no table has so many" in text
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in text.splitlines()
        if line.startswith("|") and "→" in line
    }
    assert lines["fastv"] == ["35.0 → 50.0 (3 → 2)", "35.0 → 50.0 (3 → 2)", "35.0 → 50.0 (3 → 2)", "+1"]
    assert lines["b"] == ["77.5 → 60.0 (1 → 1)", "75.0 → 60.0 (1 → 1)", "76.2 → 60.0 (1 → 1)", "+0"]
    assert "- Behind fastv here (50.0), though ahead of it in every printed table that has both: none." in text
    assert "- Behind random here (65.0), though printed: a, b, c, fastv." in text
    assert "](validity.svg)" in text
    labels = [each.text for each in xml.etree.ElementTree.parse(path.with_suffix(".svg")).iter() if each.text]
    assert sum(label == "fastv" for label in labels) == 2
    monkeypatch.setattr(charts, "available", lambda: False)
    assert main([*command, str(tmp_path / "plain.md")]) == 0
    assert "no chart" in capsys.readouterr().err
    assert ".svg" not in (tmp_path / "plain.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tokens", "0"], "--tokens 0 is not a whole number"),
        (["--tokens", "1"], "no printed table of llava-1.5-7b at 1 visual tokens has 3 of the methods"),
        ([], "with its own parameters for 64 tokens: none; fitprune paper --tokens measures them"),
        (["--reduction", "0.7"], "a result on every suite at reduction 0.7: none"),
        (["--markdown", "."], "cannot write .: it is a folder"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_status_2(arguments, said, folder, capsys):
    assert main(["validity", str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_two_tables_are_refused(folder, capsys):
    put(Store(folder), "a", np.ones(10), data="other")
    assert main(["validity", str(folder)]) == 2
    said = "holds 2 tables, of which validity asks one, or one for each seed of one model: llava-tiny, "
    assert said in capsys.readouterr().err
