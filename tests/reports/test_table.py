"""What a row of the table claims: against random and downsampling, Pareto-optimal, refused, published."""

import contextlib
import csv
import dataclasses
import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from fitprune.errors import FitPruneError, UnsupportedModel
from harness.cells import Cell, CellSettings
from harness.plugin.cell import RunCell
from harness.results.refusals import FOLDER, read_refusals
from harness.results.store import Store
from reports.__main__ import main
from reports.table import rivals
from reports.table.leaderboard import read_leaderboard
from reports.table.points import frontier
from reports.table.published import published
from reports.table.rivals import Edge, mean_edge
from reports.writing.tabular import to_csv
from tests.support.boards import answers_with, flips, put, refuse
from tests.support.results import result

pytestmark = pytest.mark.releases


def test_a_row_is_compared_with_random_on_the_same_questions(tmp_path):
    """Against scipy's paired t-test, since each question here has an image of its own: its interval or a little wider."""
    store = Store(tmp_path)
    suites = {suite: {"fastv": flips(0.9), "random": flips(0.6)} for suite in ("gqa", "pope")}
    for suite, scores in suites.items():
        for pruner, own in scores.items():
            put(store, pruner, own, suite)
    (board,) = read_leaderboard(tmp_path).boards
    place = next(place for place, row in enumerate(board.table.rows) if row.cell.pruner == "fastv")
    evidence, halves, means = board.evidence[place], [], []
    for suite, scores in suites.items():
        expected = scipy.stats.ttest_rel(scores["fastv"], scores["random"]).confidence_interval(0.95)
        edge = evidence.edges["random"][suite]
        half = 50 * (expected.high - expected.low)
        assert 0 <= 100 * expected.low - edge.low <= 0.15 * half
        assert 0 <= edge.high - 100 * expected.high <= 0.15 * half
        assert edge.points == pytest.approx(100 * (scores["fastv"].mean() - scores["random"].mean()))
        assert edge.verdict == "beats"
        halves.append(edge.high - edge.points)
        means.append(edge.points)
    average = evidence.average("random", board.table)
    assert average.points == pytest.approx(np.mean(means))
    assert average.high - average.points == pytest.approx(math.hypot(*halves) / 2)
    assert board.lines[place]["vs random"].text.startswith("▲ ")
    assert board.lines[place]["vs downsample"].text == "not run"
    assert board.lines[place]["gqa"].text.endswith("ʳ")


def test_processes_are_started_for_the_command_alone(tmp_path, monkeypatch):
    """A spawned process runs its program's main module again, which a notebook's or a script's may not stand."""
    for place, data in enumerate(("mini", "other")):
        put(Store(tmp_path), "fastv", np.ones(9), reduction=(place + 1) / 4, data=data)
    monkeypatch.setattr(rivals, "MANY", 1)
    monkeypatch.setattr(rivals, "get_context", lambda method: pytest.fail(method))
    assert len(read_leaderboard(tmp_path).boards) == 2
    with pytest.raises(pytest.fail.Exception, match="spawn"):
        read_leaderboard(tmp_path, processes=2)


def test_downsample_is_a_rival_once_it_is_there_and_only_at_the_same_reduction(tmp_path):
    store, good, bad = Store(tmp_path), np.ones(40), np.repeat([0.0, 1.0], 20)
    put(store, "fastv", bad, reduction=0.5)
    put(store, "fastv", bad, reduction=0.7)
    put(store, "downsample", good, reduction=0.5)
    (board,) = read_leaderboard(tmp_path).boards
    texts = {line["method"].text.removesuffix(" ◆"): {name: text.text for name, text in line.items()} for line in board.lines}
    assert texts["fastv 0.5"]["vs random"] == "not run"
    assert texts["fastv 0.5"]["vs downsample"].startswith("▼ −50.0 ± ")
    assert texts["fastv 0.7"]["vs downsample"] == "not run"
    assert texts["downsample 0.5"]["vs downsample"] == "–"
    assert "ᵈ" not in texts["fastv 0.5"]["gqa"]


def test_no_significance_is_said_where_there_is_none(tmp_path):
    store, alternating = Store(tmp_path), np.tile([0.0, 1.0], 20)
    put(store, "fastv", alternating)
    put(store, "random", alternating[::-1])
    (board,) = read_leaderboard(tmp_path).boards
    assert next(line for line in board.lines if line["method"].text.startswith("fastv"))["vs random"].text.startswith(
        "≈ 0.0 ± "
    )


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 2, "beats"), (-2, -0.1, "loses"), (-1, 1, "even"), (0, 1, "even"), (math.nan, math.nan, "unknown")],
)
def test_what_an_interval_says(low, high, verdict):
    assert Edge((low + high) / 2, low, high).verdict == verdict


def test_the_mean_of_lopsided_intervals_keeps_its_sides_apart():
    mean = mean_edge({"gqa": Edge(1, -2, 2), "pope": Edge(3, -1, 6)}, "hub")
    assert (mean.points, mean.low, mean.high) == pytest.approx((2, 2 - 5 / 2, 2 + math.sqrt(1 + 9) / 2))


def test_other_questions_are_not_paired_and_it_is_said(tmp_path):
    store = Store(tmp_path)
    put(store, "fastv", np.ones(10))
    put(store, "random", np.ones(12))
    (board,) = read_leaderboard(tmp_path).boards
    assert any(note.startswith("not compared: fastv 0.5 and random on gqa: cannot pair") for note in board.notes)
    assert next(line for line in board.lines if "fastv" in line["method"].text)["vs random"].text == "–"


def test_lost_are_the_questions_that_the_dense_model_answered_better(tmp_path):
    """Not those that both answered as well, nor those that pruning won: the dense model scores 1 on each here."""
    put(Store(tmp_path), "fastv", [1.0, 0.9, 0.0, 1.0, 0.5])
    (board,) = read_leaderboard(tmp_path).boards
    (lost,) = (evidence.lost["gqa"] for evidence, row in zip(board.evidence, board.table.rows, strict=True) if not row.is_dense)
    assert lost.count == 3
    assert [record["doc_id"] for record in lost.answers] == [1, 2, 4]


@pytest.mark.exhaustive
def test_several_processes_find_the_same(tmp_path, monkeypatch):
    for model in ("a", "b", "c"):
        for pruner in ("fastv", "random", "downsample"):
            put(Store(tmp_path), pruner, flips(0.7), model=model)
    alone = [board.evidence for board in read_leaderboard(tmp_path).boards]
    monkeypatch.setattr("reports.table.rivals.MANY", 1)
    assert [board.evidence for board in read_leaderboard(tmp_path, processes=2).boards] == alone
    assert all(evidence.edges for evidence in alone[0][1:2])


def brute_force(points):
    """The rule, word for word."""

    def dominated(one):
        return any(other[0] <= one[0] and other[1] >= one[1] and (other[0] < one[0] or other[1] > one[1]) for other in points)

    return {place for place, point in enumerate(points) if not dominated(point)}


@pytest.mark.parametrize("seed", range(20))
def test_the_frontier_is_what_no_point_dominates(seed):
    rng = np.random.default_rng(seed)
    points = [(float(x), float(y)) for x, y in rng.integers(0, 6, (12, 2))]
    assert frontier(points) == brute_force(points)


def test_costs_within_a_hundredth_are_equal():
    assert frontier([(100.0, 90.0), (100.9, 90.0), (100.9, 91.0), (102.0, 91.0)]) == {2}
    assert frontier([(100.0, 90.0), (100.9, 90.0)]) == {0, 1}


def test_points_without_a_figure_are_not_optimal():
    assert frontier([(math.nan, 90.0), (1.0, math.nan), (2.0, 50.0)]) == {2}


def test_a_method_that_could_not_run_has_its_row_and_reason(tmp_path):
    put(Store(tmp_path), "fastv", np.ones(10))
    path = refuse(tmp_path, reason="it saves\nat most 40 %")
    assert path.parent == tmp_path / FOLDER
    refuse(tmp_path, pruner="tome", limit=7)  # of another table, which has no row
    found = read_leaderboard(tmp_path)
    assert found.damaged == ["llava-tiny-tome-0.9 has no result, nor has its model: cannot: it saves at most 40 %"]
    (board,) = found.boards
    assert [line["method"].text for line in board.lines] == ["dense", "fastv 0.5 ◆", "vtw 0.9"]
    assert board.lines[-1]["average"].text == "cannot: it saves at most 40 %"
    assert main([str(tmp_path), "--markdown", str(tmp_path / "a.md")]) == 0
    assert "| vtw 0.9" in (tmp_path / "a.md").read_text()


def test_a_row_that_could_run_on_one_suite_only(tmp_path):
    put(Store(tmp_path), "vtw", np.ones(10), reduction=0.9)
    put(Store(tmp_path), "fastv", np.ones(10), suite="pope", reduction=0.9)
    refuse(tmp_path, suite="pope")
    (board,) = read_leaderboard(tmp_path).boards
    row = next(line for line in board.lines if line["method"].text.startswith("vtw"))
    assert [text.text for text in row.values()][-2:] == ["cannot", "none"]
    assert "vtw 0.9 has no result on every suite: cannot: it saves at most 40 %" in board.notes


def test_a_later_result_overtakes_a_refusal(tmp_path):
    refuse(tmp_path)
    put(Store(tmp_path), "vtw", np.ones(10), reduction=0.9, date="2999-01-01T00:00:00+00:00")
    (board,) = read_leaderboard(tmp_path).boards
    assert not any(row.refused for row in board.table.rows)


def test_a_suite_whose_cells_failed_stays_in_a_folder_that_is_read_later(tmp_path):
    """Also the dense cell's failure, which makes no second dense row."""
    put(Store(tmp_path), "fastv", np.ones(10))
    for pruner, reduction in (("fastv", 0.5), ("dense", None)):
        refuse(tmp_path, pruner, reduction, "pope", "out of memory", kind="failed")
    found = read_leaderboard(tmp_path)
    (board,) = found.boards
    assert [line["method"].text.removesuffix(" ◆") for line in board.lines] == ["dense", "fastv 0.5"]
    assert board.columns[-3:] == ["GQA", "POPE", "servable in"]
    assert board.columns[1] == "average of 1/2"
    assert [line["pope"].text for line in board.lines] == ["failed", "failed"]
    assert [line["servable in"].text for line in board.lines] == ["all", "none"]
    assert "fastv 0.5 has no result on every suite: failed: out of memory" in board.notes
    lines = {(line["method"], line["suite"]): line for line in csv.DictReader(io.StringIO(to_csv(found)))}
    assert (lines["fastv", "pope"]["failed"], lines["fastv", "pope"]["cannot"]) == ("out of memory", "")


def test_of_a_folder_with_nothing_but_failures_the_first_is_said(tmp_path):
    refuse(tmp_path, "fastv", 0.5, reason="out of memory", kind="failed")
    with pytest.raises(FitPruneError, match=r"^no results in .*: llava-tiny-fastv-0\.5 on gqa failed: out of memory$"):
        read_leaderboard(tmp_path)


@pytest.mark.parametrize(("every", "outcome"), [(False, pytest.fail), (True, pytest.skip)])
def test_a_model_that_a_method_cannot_prune_is_noted_and_fails_its_cell_if_it_was_named(tmp_path, every, outcome):
    @contextlib.contextmanager
    def unfit(cell):
        raise UnsupportedModel("no [CLS] here")
        yield

    options = SimpleNamespace(settings=CellSettings(limit=8), command=lambda cell: f"pytest {cell.suite}", every=every)
    bench = SimpleNamespace(measuring=unfit)
    run = SimpleNamespace(bench=bench, store=Store(tmp_path), options=options, folder=tmp_path, say=print)
    item = SimpleNamespace(stash=pytest.Stash(), user_properties=[])
    with pytest.raises(outcome.Exception, match=r"no \[CLS\] here"):
        RunCell(Cell("m", "visionzip", 0.5, "gqa"), run, item).check()
    (refusal,), _ = read_refusals(tmp_path)
    assert (refusal.cell.pruner, refusal.reason, refusal.limit) == ("visionzip", "no [CLS] here", 8)
    assert refusal.command == "pytest gqa"


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1, "reason": 3}', "\udcff"])
def test_a_damaged_refusal_is_named(tmp_path, text):
    refuse(tmp_path)
    (tmp_path / FOLDER / "broken.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refusals, notes = read_refusals(tmp_path)
    assert [refusal.cell.pruner for refusal in refusals] == ["vtw"]
    assert len(notes) == 1
    assert notes[0].startswith("cannot/broken.json is damaged and left out: ")


def test_a_refusal_comes_back_as_it_was(tmp_path):
    refuse(tmp_path, limit=8)
    refuse(tmp_path, limit=8, reason="newer")  # of the same cell
    (refusal,), notes = read_refusals(tmp_path)
    assert notes == []
    assert (refusal.cell, refusal.reason) == (Cell("llava-tiny", "vtw", 0.9, "gqa"), "newer")
    assert (refusal.data, refusal.limit, refusal.command) == ("mini", 8, "pytest suites/test_gqa.py")


def test_published_figures_are_those_of_the_methods_in_the_table():
    table = published({"fastv"})
    assert {row.method for row in table.rows} == {"dense", "fitprune", "fastv"}
    assert all(row.model.endswith("-7b") for row in table.rows)
    rows = [row for row in table.rows if (row.model, row.method, row.setting) == ("llava-1.5-7b", "fastv", "64 tokens")]
    known = {row.source.partition(",")[0]: (row.values["gqa"], row.values["pope"]) for row in rows}
    # The same method at the same setting on the same model: each source has a row of its own.
    assert known == {
        "arXiv 2606.01711 (RESTORE": ("46.4", "36.1"),
        "EADP (ECCV 2026)": ("48.0", "37.2"),
        "TOPS (2026)": ("46.0", "35.5"),
        "SparseVLM's paper": ("46.1", "48.0"),
    }


def test_layers_tokens_are_kept_in_a_result_and_checked(tmp_path):
    kept = dataclasses.replace(result(), tokens_per_layer=[144.0, 70.5])
    path = tmp_path / Store(tmp_path).write(kept, answers_with([1.0]))
    (read,) = Store(tmp_path).read_all().results
    assert dataclasses.replace(read, answers_digest="", key="") == kept
    path.write_text(path.read_text().replace("70.5", '"many"'))
    _, (note,) = Store(tmp_path).read_all()
    assert "tokens_per_layer[1] is 'many', not a valid number" in note


def test_the_rival_is_the_row_that_its_authors_would_have(tmp_path):
    store = Store(tmp_path)
    put(store, "fastv", np.repeat([1.0, 0.0], 20))
    put(store, "downsample", np.repeat([0.0, 0.0], 20))
    put(store, "downsample", np.repeat([1.0, 1.0], 20), positions_asked="kept")
    (board,) = read_leaderboard(tmp_path).boards
    place = next(place for place, row in enumerate(board.table.rows) if row.cell.pruner == "fastv")
    assert board.evidence[place].edges["downsample"]["gqa"].points == pytest.approx(50)
