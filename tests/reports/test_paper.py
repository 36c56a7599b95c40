"""`fitprune paper`: what can run and what not, that it runs once, its page, and what it refuses before any work."""

import re

import pytest

import harness.bench.bench
from harness.cells import Cell
from harness.paper.cells import paper_of
from harness.published.tables import columns, find_table
from harness.results.store import Store
from reports.console import main as program
from reports.paper.view import view_of
from tests.support import fake_bench, tiny_llava
from tests.support.results import result

TABLE = find_table("restore-1")


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Answers of a few methods, made up; the log of what was asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(harness.bench.bench, "Bench", fake_bench.FakeBench)
    for name, lost in (("divprune", 6), ("visionzip", 24)):
        monkeypatch.setitem(fake_bench.LOST, name, lost)
    (tmp_path / "log").touch()
    return lambda: (tmp_path / "log").read_text().split("\n")[:-1]


def main(words):
    return program(["paper", *words])


ASKED = ("restore-1", "--model", "llava-tiny", "--suite", "gqa,pope", "--pruner", "dense,divprune,visionzip")


def test_every_figure_has_a_cell_or_a_reason():
    paper = paper_of(TABLE, "llava-tiny", config("llava-tiny"), 144, "mini", pruners=("dense", "divprune"))
    known = {entry.place: entry for entry in paper.cells}
    assert len(known) == 296
    assert known["576 tokens", "dense", "gqa"].cell == Cell("llava-tiny", "dense", None, "gqa")
    assert known["192 tokens", "divprune", "gqa"].cell == Cell("llava-tiny", "divprune", 0.694, "gqa")
    assert known["192 tokens", "fastv", "gqa"].reason == "not asked for"
    assert known["192 tokens", "divprune", "mme"].cell == Cell("llava-tiny", "divprune", 0.694, "mme-total")
    assert known["64 tokens", "restore-visionzip", "gqa"].reason == "restore-visionzip is not among the methods here"
    assert all((entry.cell is None) == bool(entry.reason) for entry in paper.cells)
    suites = len({cell.suite for cell in paper.runnable})
    assert suites > 5
    assert [cell.is_dense for cell in paper.runnable] == [True, False, False, False] * suites  # suite by suite


def test_rows_of_so_many_tokens_and_the_dense_one():
    """Data of a suite that is not asked for are not looked at, here ones that are on no machine."""
    paper = paper_of(TABLE, "llava-tiny", config("llava-tiny"), 144, "mini", ("gqa",), ("dense", "divprune", "vtw"), left=64)
    assert [cell.label() for cell in paper.runnable] == ["llava-tiny-dense", "llava-tiny-divprune-0.896"]
    elsewhere = paper_of(TABLE, "llava-tiny", config("llava-tiny"), 144, "no/such/folder", ("gqa",), ("divprune",), left=64)
    reasons = {entry.place: entry.reason for entry in elsewhere.cells}
    assert reasons["64 tokens", "divprune", "pope"] == reasons["128 tokens", "divprune", "gqa"] == "not asked for"
    assert "no/such/folder" in reasons["64 tokens", "divprune", "gqa"]


def config(name):
    from harness.models.registry import find_model
    from harness.models.shipped import transformers_config

    return transformers_config(find_model(name))


def test_a_new_suite_runs_as_soon_as_it_is_there(monkeypatch):
    from harness.paper import measurable
    from harness.tasks.specs import SUITES

    row = next(row for row in TABLE.rows if row.method == "fastv")
    fewer = {name: SUITES[name] for name in SUITES if name not in ("textvqa-ocr", "mmbench")}
    monkeypatch.setattr(measurable, "SUITES", fewer)
    assert measurable.measurable(TABLE, row, columns()["textvqa"]) == ("textvqa", "")
    assert measurable.measurable(TABLE, row, columns()["mmbench"]) == ("", "there is no suite mmbench here")
    monkeypatch.undo()
    assert measurable.measurable(TABLE, row, columns()["textvqa"]) == ("textvqa-ocr", "")
    assert measurable.measurable(TABLE, row, columns()["textvqa"], ["textvqa", "gqa"]) == ("textvqa", "")
    assert measurable.measurable(TABLE, row, columns()["mmbench"], ["gqa"]) == ("mmbench", "")


def test_a_table_in_context_and_an_average_are_no_cells_here():
    for name, reason in (("catp", "several images a prompt"), ("fitprune", "average drop is no score of a suite")):
        table = find_table(name)
        paper = paper_of(table, table.model, None, 2880, "mini")
        assert not paper.runnable
        assert all(reason in entry.reason for entry in paper.cells)


@pytest.mark.exhaustive
def test_an_interrupted_run_goes_on_and_asks_nothing_twice(made_up, monkeypatch, capsys):
    plain = fake_bench.FakeEvaluation.evaluate

    def interrupted(self, resolved, *more):
        if resolved.cell.pruner == "visionzip" and resolved.cell.suite == "pope":
            raise KeyboardInterrupt
        return plain(self, resolved, *more)

    monkeypatch.setattr(fake_bench.FakeEvaluation, "evaluate", interrupted)
    assert main([*ASKED]) == 130
    assert "go on with: fitprune paper restore-1 --model llava-tiny" in capsys.readouterr().err
    first = made_up()
    assert 0 < len(first) < 14
    monkeypatch.setattr(fake_bench.FakeEvaluation, "evaluate", plain)
    assert main([*ASKED]) == 0
    everything = made_up()
    assert len(everything) == len(set(everything)) == 14  # two suites: the dense model, two methods at three settings
    assert everything[: len(first)] == first
    assert main([*ASKED]) == 0
    assert made_up() == everything
    assert "14 of 296 printed figures were measured here" in capsys.readouterr().out


def test_the_page_compares_and_says_why_not(made_up, tmp_path):
    assert main([*ASKED, "-o", "pages"]) == 0
    markdown = (tmp_path / "pages/restore-1-llava-tiny.md").read_text()
    page = (tmp_path / "pages/restore-1-llava-tiny.html").read_text()
    # 54 of 60 questions right is 90.0; GQA's 58.9 is printed.
    assert re.search(r"\| divprune +\| 58\.9 → 90\.0 ± [\d.]+ \(\+31\.1 ✗\)", markdown)
    stored = {(r.pruner, r.suite): r for r in Store(tmp_path / "results").read_all().results}
    low, high = stored["visionzip", "gqa"].score_ci95
    assert low <= 59.2 <= high  # 36 of 60 are right
    assert re.search(r"59\.2 → 60\.0 ± [\d.]+ \(\+0\.8 ✓\)", markdown)
    for said in (
        "restore-visionzip is not among the methods here",
        "The table is of llava-1.5-7b, the figures here are of llava-tiny: no difference is a method's.",
        "The table counts 576 visual tokens a prompt; llava-tiny has 144, of which the same shares are kept.",
        "POPE: papers mostly print F1",
        "192 tokens are taken as 48 tokens that enter the decoder: DivPrune(subset",
        TABLE.source,
    ):
        assert said in page.replace("&#39;", "'"), said
        assert said in markdown.replace("\\", ""), said
    assert "http" not in page.replace("http-equiv", "")
    assert stored["divprune", "gqa"].command.startswith("pytest --pyargs suites.test_gqa --model llava-tiny --pruner divprune")


def test_scores_that_are_printed_in_other_points_are_compared_in_points():
    table = find_table("llava-hr")
    paper = paper_of(table, "llava-tiny", config("llava-tiny"), 144, "mini", suites=("mme",))
    (cell,) = paper.runnable
    view = view_of(paper, {cell: result(suite="mme", score=75.0, score_ci95=(74.0, 76.0))}, "here", "again")
    place = view.sections[0].rows[0][1][view.titles.index("MME, perception")]
    assert (place.published, place.ours, place.difference) == ("1554.9 (77.7 points)", "75.0 ± 1.0", "−2.7")
    assert place.covered is False


def test_a_cell_that_fails_has_its_reason_and_stops_no_other(made_up, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_CRASH", "llava-tiny-divprune-0.694")
    monkeypatch.setenv("FAKE_REFUSE", "no memory for it")
    assert main([*ASKED]) == 0
    assert "no memory for it" in (tmp_path / "paper/restore-1-llava-tiny.html").read_text()
    assert len(made_up()) == 14


def test_a_plan_prices_and_writes_nothing(made_up, tmp_path, capsys):
    assert main([*ASKED, "--plan", "--limit", "4"]) == 0
    said = capsys.readouterr().out
    assert "14 cells: 14 to run" in said
    assert re.search(r"FLOPs: \d", said)
    assert "24 figures cannot: restore-visionzip is not among the methods here (restore-visionzip, 192 tokens, …)" in said
    assert {path.name for path in tmp_path.iterdir()} == {"log"}


@pytest.mark.exhaustive
def test_a_random_checkpoint_in_the_hubs_format(tmp_path, monkeypatch):
    """Through the real models, tasks and statistics."""
    monkeypatch.chdir(tmp_path)
    tiny_llava.save_tiny(tmp_path / "m")
    tiny_llava.write_suites(tmp_path / "d")
    asked = ["restore-1", "--model", "m", "--data", "d", "--suite", "pope", "--pruner", "dense,divprune"]
    assert main(asked) == 0
    page = (tmp_path / "paper/restore-1-m.md").read_text()
    assert "m has 16, of which the same shares are kept" in page
    assert re.search(r"4 of 296 printed figures were measured here", page)
    pruned = [r for r in Store(tmp_path / "results").read_all().results if r.pruner == "divprune"]
    assert sorted(r.tokens_per_layer[0] for r in pruned) == [2, 4, 5]  # of 16: 1.8, 3.6, 5.3


@pytest.mark.parametrize("model", ["llava-hr-7b", "llava-hr"])
def test_the_list_says_what_can_run(model, capsys):
    assert main(["list", "--model", model]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["table", "model", "figures", "can", "run", "source"]
    assert line.split()[:4] == ["llava-hr", "llava-hr-7b", "6", "6"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["restore-3"], "unknown table 'restore-3'; did you mean restore-2 or restore-1"),
        (["list", "--model", "qwen2.5-vl-3b"], "no published table is of qwen2.5-vl-3b; there are tables of llava-1.5-7b, "),
        (["restore-1", "--model", "llava-tiny", "--suite", "gqx"], "unknown suite 'gqx'; did you mean gqa?"),
        (["restore-1", "--model", "llava-tiny", "--pruner", "fastw"], "unknown pruner 'fastw'; did you mean fastv"),
        (["restore-1", "--model", "llava-tiny", "--results", "file"], "is not a folder; give another with --results"),
        (["restore-1", "--model", "llava-tiny", "-o", "file"], "cannot write the page to file: it is a file"),
        (["restore-1", "--model", "nowhere"], "nowhere"),
        (["catp", "--model", "llava-tiny"], "no figure of catp can be measured here: 104 figures cannot: several images"),
        (["restore-1", "--limit", "0"], "--limit 0 is not a whole number of at least 1"),
        ([], "the following arguments are required: list|NAME"),
    ],
)
def test_refusals_are_one_line_before_work(arguments, said, made_up, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert made_up() == []
    assert {path.name for path in tmp_path.iterdir()} == {"log", "file"}
