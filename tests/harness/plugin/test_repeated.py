"""Cells that fail one after another with the same error: the run stops, and says it once."""

import subprocess

import pytest

from harness.plugin.repeated import Repeated, stopped
from tests.support.suite_runs import SUITES, command, environment

pytest_plugins = ["pytester", "tests.support.suite_runs"]

SAID = "ZeroDivisionError: no cache at "


def test_three_in_a_row_stop_the_run_and_the_traceback_is_printed_once(run, monkeypatch):
    monkeypatch.setenv("FAKE_CRASH", "pruned")
    result = run("--pruner", "dense,fitprune,random", suites=("gqa", "pope"))
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=3, skipped=10)
    text = result.stdout.str()
    assert text.count("raise ZeroDivisionError") == 1
    assert text.count("\nthe same error as in ") == 2
    assert text.count("\nerror: ") == 1
    result.stdout.fnmatch_lines(
        ["not run: 10 of 14 cells; 3 cells, one after another, failed with the same error: " + SAID + "*; the same command*"]
    )
    assert len(run.log.read_text().splitlines()) == 4


def test_dense_cells_between_them_do_not_end_the_row(run, monkeypatch):
    monkeypatch.setenv("FAKE_CRASH", "pruned")
    result = run("--pruner", "dense,random", "--reduction", "0.5", suites=("gqa", "pope", "mme", "vqav2"))
    result.assert_outcomes(passed=3, failed=3, skipped=2)


def test_a_cell_that_was_measured_ends_the_row(run, monkeypatch):
    monkeypatch.setenv("FAKE_CRASH", "m-random-0.3,m-random-0.5,m-random-0.8")
    result = run("--pruner", "random", "--reduction", "0.3,0.5,0.6,0.8,0.9")
    assert result.ret == 1
    result.assert_outcomes(passed=2, failed=3)
    assert result.stdout.str().count("raise ZeroDivisionError") == 1
    assert "not run" not in result.stdout.str()


@pytest.mark.exhaustive
def test_two_workers_stop_too(place, tmp_path):
    paths = [str(SUITES / f"test_{suite}.py") for suite in ("gqa", "pope", "mme", "vqav2")]
    ran = subprocess.run(
        command(place, tmp_path, "-n", "2", *paths),
        env=environment(tmp_path) | {"FAKE_CRASH": "pruned"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert ran.stdout.count("raise ZeroDivisionError") == 1
    failed = ran.stdout.count("FAILED suites") or ran.stdout.count("\nFAILED ")
    assert 3 <= failed <= 6  # what the other worker had begun by then
    assert ran.stdout.count("\nnot run: ") == 1
    assert len(ran.stdout.splitlines()) < 150


def test_lost_gates_stop_nothing(run):
    result = run("--pruner", "random", "--max-drop", "1", suites=("gqa", "pope"))
    result.assert_outcomes(failed=6)


def test_what_one_method_refuses_stops_no_other(run, monkeypatch):
    monkeypatch.setenv("FAKE_CRASH", "m-random-0.3,m-random-0.5,m-random-0.6,m-random-0.8")
    monkeypatch.setenv("FAKE_REFUSE", "random cannot run on this model")
    result = run("--pruner", "random,fitprune", "--reduction", "0.3,0.5,0.6,0.8")
    result.assert_outcomes(failed=4, passed=4)


def test_what_all_methods_are_refused_with_stops_the_run(run, monkeypatch):
    monkeypatch.setenv("FAKE_CRASH", "pruned")
    monkeypatch.setenv("FAKE_REFUSE", "transformers 5.99.0 hands layers no cache")
    result = run("--pruner", "random,fitprune", "--reduction", "0.3,0.5,0.6", suites=("gqa", "pope"))
    result.assert_outcomes(failed=4, skipped=8)
    result.stdout.fnmatch_lines(["not run: 8 of 12 cells; 3 cells, *: transformers 5.99.0 hands layers no cache; *"])


def test_workers_that_die_one_after_another_stop_the_run(tmp_path):
    """By the reports that xdist makes of them."""
    counted = Repeated(tmp_path)
    for number in range(3):
        assert stopped(tmp_path) == ""
        died = pytest.TestReport(f"test_{number}", ("", 0, ""), {}, "failed", "worker 'gw0' crashed", "???")
        counted.reported(died, None)
    assert stopped(tmp_path) == "3 cells, one after another, failed with the same error: a worker process died"


@pytest.mark.exhaustive
def test_a_worker_that_dies_again_and_again_stops_the_run(place, tmp_path):
    (tmp_path / "dying.py").write_text(
        "import os\nfrom harness.bench.bench import Bench\n"
        "def die(self, cell):\n    os._exit(3)\n"
        "from tests.support import fake_bench\nfake_bench.FakeBench.measuring = die\n"
    )
    paths = [str(SUITES / f"test_{suite}.py") for suite in ("gqa", "pope", "mme", "vqav2")]
    given = environment(tmp_path)
    ran = subprocess.run(
        command(place, tmp_path, "-n", "1", "--max-worker-restart", "20", "-p", "dying", *paths),
        env=given | {"PYTHONPATH": f"{given['PYTHONPATH']}:{tmp_path}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "failed with the same error: a worker process died" in ran.stdout
    assert ran.stdout.count("crashed while running") <= 8
