"""The plugin's parts by themselves: selection, cell ids, dealing order, threads, the table's arithmetic."""

import itertools
import math
import os
from types import SimpleNamespace

import pytest

from harness.cells import Cell, CellSettings
from harness.cores import available_cores
from harness.plugin.parametrize import cell_ids, cells_of
from harness.plugin.selection import is_suites_folder, selected_suites
from harness.plugin.summary import CellReport, lines_of, remarks
from harness.plugin.workers import Worker, dealing_order
from harness.results.table import Figure, tables_of
from harness.results.texts import figure_text, row_texts
from tests.support.results import result

pytestmark = pytest.mark.releases


def item(*cell):
    return SimpleNamespace(name=cell, callspec=SimpleNamespace(params={"cell": Cell(*cell)}))


def test_only_a_marked_folder_is_one_of_suites(tmp_path):
    for text, expected in (("", False), ("# fitprune_suites = True", False), ("fitprune_suites = True\n", True)):
        (tmp_path / "__init__.py").write_text(text)
        assert is_suites_folder(tmp_path) == expected
    assert not is_suites_folder(tmp_path / "nowhere")


def test_suites_are_found_from_folders_files_and_node_ids(tmp_path):
    (tmp_path / "__init__.py").write_text("fitprune_suites = True\n")
    for name in ("gqa", "pope"):
        (tmp_path / f"test_{name}.py").write_text("")
    assert selected_suites(tmp_path, ["."]) == ["gqa", "pope"]
    assert selected_suites(tmp_path, ["-q", "test_pope.py::test_pope[x]", "test_new.py"]) == ["pope", "new"]


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["llava-hf/llava-1.5-7b-hf"], ["llava-1.5-7b-hf-random-0.5"]),
        (["/a/x", "/b/y"], ["x-random-0.5", "y-random-0.5"]),
        (["/a/x", "/b/x"], ["/a/x-random-0.5", "/b/x-random-0.5"]),
    ],
)
def test_ids_use_the_last_part_of_a_models_name_while_it_tells_them_apart(models, expected):
    assert cell_ids([Cell(model, "random", 0.5, "gqa") for model in models]) == expected


def test_cells_are_dealt_so_that_nobody_waits_for_long():
    items = [
        item("m", pruner, reduction, suite)
        for suite in ("gqa", "pope")
        for pruner, reduction in (("dense", None), ("fitprune", 0.3), ("fitprune", 0.5), ("random", 0.5))
    ]
    dealt = [place.name[1:] for place in dealing_order(items)]
    assert dealt[:2] == [("fitprune", 0.3, "gqa"), ("fitprune", 0.5, "gqa")]
    assert [cell[0] for cell in dealt[2:]] == ["dense", "dense", "random", "random", "fitprune", "fitprune"]


def test_one_model_is_finished_before_the_next_and_other_tests_come_first():
    plain = SimpleNamespace(name="plain")
    items = [item("a", "random", 0.5, "gqa"), item("b", "random", 0.5, "gqa"), item("a", "dense", None, "gqa"), plain]
    assert [place.name if place is plain else place.name[:2] for place in dealing_order(items)] == [
        "plain", ("a", "dense"), ("a", "random"), ("b", "random"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "asked", "expected"),
    [(2, None, max(1, available_cores() // 2)), (64, None, 1), (2, "1", 1), (1, "3", "3")],
)
def test_threads_are_shared_out(monkeypatch, workers, asked, expected):
    import torch

    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    Worker(0, workers, workers > 1).limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == str(expected)
    assert counts == ([] if workers == 1 else [expected])


@pytest.mark.parametrize(
    ("asked", "cards", "expected"),
    [(None, 0, None), (None, 2, "cuda:1"), (None, 3, "cuda:0"), ("cpu", 2, "cpu"), ("cuda:1", 2, "cuda:1")],
)
def test_cuda_devices_are_dealt_by_turn(monkeypatch, asked, cards, expected):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert Worker(3, 8, True).device(asked) == expected


def rows_of(results):
    (table,) = tables_of(results, ["pope", "gqa"])
    return table, [row.name for row in table.rows]


def test_dense_is_on_top_also_when_it_was_not_run():
    table, names = rows_of([result(suite="gqa"), result(suite="pope", dense_score=70.0, dense_flops=4e9)])
    assert names == ["dense", "fastv 0.5"]
    assert table.suites == ["pope", "gqa"]
    dense, fastv = table.rows
    assert dense.average(table.suites).score == pytest.approx(80)
    assert (dense.flops, dense.flops_share, dense.time_share) == (3e9, 1, 1)
    assert math.isnan(fastv.time_share)
    assert fastv.flops_share == pytest.approx(1 / 3)


def test_an_average_needs_every_suite():
    table, _ = rows_of([result(suite="gqa"), result(suite="pope"), result(suite="gqa", pruner="random")])
    average = {row.name: row.average(table.suites) for row in table.rows}
    assert average["random 0.5"] is None
    assert average["fastv 0.5"].drop == 10
    assert average["fastv 0.5"].drop_half_width == pytest.approx(math.sqrt(2 * 2**2) / 2)


def test_the_newer_of_two_results_counts():
    table, _ = rows_of([result(score=2.0, date="2026-02"), result(score=1.0, date="2026-01")])
    assert table.rows[1].figure("gqa").score == 2


def test_other_weights_or_data_or_limits_are_other_tables():
    results = [result(), result(revision="new"), result(data="hub"), result(limit=8), result(model="other")]
    assert len(tables_of(results)) == 5


@pytest.mark.parametrize(
    "other", [{"device": "NVIDIA H200"}, {"generation": {"dtype": "bfloat16"}}, {"weights": "x"}, {"data_digest": "new"}]
)
def test_another_device_precision_or_digest_is_another_table_and_says_so(other):
    """Neither stands in for a missing row there, nor is it a rival of the other."""
    known = {"generation": {"dtype": "float32"}, "data_digest": "old", "weights": "w"}
    tables = tables_of([result(**known), result(**(known | other), pruner="random", date="2027")])
    assert [[row.name for row in table.rows] for table in tables] == [["dense", "fastv 0.5"], ["dense", "random 0.5"]]
    assert tables[0].apart != tables[1].apart


def test_the_newest_data_of_each_suite_make_one_table():
    old = [result(suite=suite, data_digest=f"{suite} old", date="2025") for suite in ("gqa", "pope")]
    tables = tables_of([*old, result(suite="gqa", data_digest="gqa new", date="2026")])
    digests = [{suite: read.data_digest for suite, read in table.rows[1].results.items()} for table in tables]
    assert {"gqa": "gqa new", "pope": "pope old"} in digests
    assert {"gqa": "gqa old"} in digests


def test_a_suite_without_a_result_stays_and_the_average_says_what_it_is_of():
    (table,) = tables_of([result(suite="gqa"), result(suite="pope")], ["pope", "gqa"], suites=["mme"])
    assert table.suites == ["pope", "gqa", "mme"]
    assert (table.averaged, table.average_title) == (["pope", "gqa"], "average of 2/3")
    head, _, fastv = lines_of([table])
    assert "average of 2/3" in head
    assert head.split()[-1] == "MME"
    assert fastv.split()[-1] == "–"
    assert "80.0 (10.0" in fastv


def test_what_was_asked_until_decided_is_a_table_of_its_own():
    """Its scores are of fewer questions, and take no full run's place."""
    stopped = result(score=1.0, date="2027", sequential={"margin": 5.0, "seed": 0})
    tables = tables_of([result(), stopped])
    assert [(table.sequential, table.rows[1].figure("gqa").score) for table in tables] == [(False, 80.0), (True, 1.0)]


def test_rows_are_sorted_by_reduction_then_average_and_those_without_one_are_last():
    scores = {"random": 60.0, "fastv": 80.0, "vtw": 99.0}
    results = [
        result(pruner=name, score=score, reduction_asked=asked) for name, score in scores.items() for asked in (0.7, 0.3)
    ]
    results += [
        result(suite="pope", pruner=name, reduction_asked=asked) for name in ("random", "fastv") for asked in (0.3, 0.7)
    ]
    names = [f"{name} {each}" for each in (0.3, 0.7) for name in ("fastv", "random", "vtw")]
    assert rows_of(results)[1] == rows_of(results[::-1])[1] == ["dense", *names]


def test_the_worst_suite_is_that_of_the_largest_drop():
    drops = {"gqa": 1.0, "pope": 7.5, "mme": -2.0}
    results = [result(suite=suite, score=90 - drop, drop=drop, drop_ci95=(drop - 1, drop + 1)) for suite, drop in drops.items()]
    dense, fastv = rows_of(results)[0].rows
    suite, figure = fastv.worst(list(drops))
    assert (suite, figure.drop) == ("pope", 7.5)
    assert fastv.worst([*drops, "vqav2"]) is None
    assert dense.worst(list(drops)) is None


@pytest.mark.parametrize(
    ("times", "rough"),
    [({"prefill": 12.0}, False), ({"prefill": 9.9}, True), ({"prefill": 12.0, "processes": 2}, True), ({}, False)],
)
def test_a_short_time_or_one_beside_other_processes_is_rough(times, rough):
    table, _ = rows_of([result(latency_ms={"prefill_ratio": 0.756} | times)])
    assert row_texts(table.rows[1], table, str)["time, of dense"] == ("~0.76" if rough else "0.76")


def test_floats_have_as_many_decimals_as_the_dense_model_s_three_digits():
    table, _ = rows_of([result(flops=9.876e9, dense_flops=123.456e9)])
    assert [row_texts(row, table, str)["GFLOPs"] for row in table.rows] == ["123", "10"]
    table, _ = rows_of([result(flops=0.05e9, dense_flops=0.7624e9)])
    assert [row_texts(row, table, str)["GFLOPs"] for row in table.rows] == ["0.762", "0.050"]


def test_recipes_have_rows_of_their_own():
    results = [result(pruner="fitprune", reduction_asked=None, recipe=f"/x/{name}.json") for name in ("a", "b")]
    assert rows_of(results)[1] == ["dense", "fitprune a", "fitprune b"]


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (None, "–"),
        (Figure(90.0, 2.0), "90.0"),
        (Figure(88.06, 2.0, 3.94, 1.2), "88.1 (3.9 ± 1.2)"),
        (Figure(88.0, 2.0, -0.5, math.nan), "88.0 (−0.5)"),
        (Figure(88.0, 2.0, -0.04, 1.0), "88.0 (0.0 ± 1.0)"),
        (Figure(50.0, 2.0, 40.0, 5.0, failed=True), "50.0 (40.0 ± 5.0) ✗"),
        (Figure(99.8, 2.0, 0.0, 2.8), "99.8 (0.0 [−0.2, 2.8])"),  # nothing scores above 100
        (Figure(1.0, 2.0, 89.0, 2.0), "1.0 (89.0 [87.0, 90.0])"),  # nor below 0
    ],
)
def test_figures_in_the_table(figure, expected):
    assert figure_text(figure) == expected


def test_six_suites_fit_210_columns():
    suites = ["gqa", "vqav2", "textvqa", "pope", "mme", "scienceqa"]
    results = [
        result(suite=suite, pruner="fitprune", score=51.3, drop=41.7, drop_ci95=(39.6, 43.8), verdict="fail", flops=1.234e9)
        for suite in suites
    ]
    lines = lines_of(tables_of(results, suites))
    assert "51.3 (41.7 ± 2.1) ✗" in lines[2]
    assert max(map(len, lines)) <= 210
    assert lines_of(tables_of(results, suites), width=210) == lines


@pytest.mark.parametrize("width", [80, 60, 1])
def test_in_a_narrow_terminal_suites_stand_below_one_another(width):
    """Every figure of the wide table, each once, in blocks that begin with the rows' names."""
    suites = ["gqa", "vqav2", "textvqa", "pope", "mme", "scienceqa"]
    results = [
        result(model=model, suite=suite, pruner="fitprune", score=place + 0.3, drop=41.7, drop_ci95=(39.6, 43.8))
        for model in ("llava-tiny", "llava-next-tiny")
        for place, suite in enumerate(suites)
    ]
    wide = lines_of(tables_of(results, suites))
    blocks = "\n".join(lines_of(tables_of(results, suites), width=width)).split("\n\n")
    assert len(blocks) > 1
    for block in blocks:
        lines = block.splitlines()
        assert [line.split()[0] for line in lines[1:]] == [line.split()[0] for line in wide[1:]]
        assert width == 1 or max(map(len, lines)) <= width

    def figures(block):
        head, *rows = block.splitlines()
        return [head.split(), *(line.removeprefix("fitprune 0.5").split() for line in rows if not line.startswith("llava"))]

    heads, *rows = [" ".join(itertools.chain(*parts)) for parts in zip(*map(figures, blocks), strict=True)]
    head, *whole = (" ".join(row) for row in figures("\n".join(wide)))
    assert heads == head
    assert [row.replace(" dense", "") for row in rows] == whole


def test_several_models_share_one_table():
    """One header, columns in line, each model's rows after its name."""
    results = [
        result(model=model, suite=suite, pruner="fitprune", score=score, drop=1.0, drop_ci95=(0.5, 1.5), verdict="pass")
        for model, score in (("llava-tiny", 9.0), ("llava-next-tiny", 88.0))
        for suite in ("gqa", "pope")
    ]
    lines = lines_of(tables_of(results, ["gqa", "pope"]))
    assert [line.split()[0] for line in lines] == [
        "average",
        "llava-tiny",
        "dense",
        "fitprune",
        "llava-next-tiny",
        "dense",
        "fitprune",
    ]
    average, pope = lines[0].index("average"), lines[0].index("POPE")
    assert lines[3][average:].startswith("9.0 (1.0 ± ")
    assert lines[6][average:].startswith("88.0 (1.0 ± ")
    assert lines[3][pope:] == "9.0 (1.0 ± 0.5)"
    assert lines[6][pope:] == "88.0 (1.0 ± 0.5)"


def test_a_report_survives_the_way_from_a_worker():
    report = CellReport(result().cell, "pass", result(drop=math.nan))
    back = CellReport.from_json(report.to_json())
    assert math.isnan(back.result.drop)
    assert (back.cell, back.outcome) == (report.cell, "pass")


def test_notes_are_said_once():
    noted = result(note="fewer questions; another thing")
    said = remarks([CellReport(noted.cell, "pass", noted), CellReport(noted.cell, "pass", noted)])
    assert said == ["note: fewer questions", "note: another thing"]


def test_settings_have_the_defaults_of_the_command_line():
    assert CellSettings() == CellSettings("mini", None, 16, 0, ())


def test_a_row_for_each_choice_of_position_ids():
    options = SimpleNamespace(
        models=("llava-tiny",),
        pruners=("dense", "fastv", "divprune"),
        reductions=(0.5,),
        recipe="",
        positions=("authors", "kept", "repacked"),
    )
    cells = cells_of(options, "gqa")
    # FastV's authors keep the ids, DivPrune's number them anew: what they do anyway is no row of its own.
    assert [(cell.pruner, cell.positions) for cell in cells] == [
        ("dense", ""),
        ("fastv", ""),
        ("fastv", "repacked"),
        ("divprune", ""),
        ("divprune", "kept"),
    ]
    assert cell_ids(cells)[-1] == "llava-tiny-divprune-0.5-ids-kept"
