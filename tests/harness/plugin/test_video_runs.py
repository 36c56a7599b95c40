"""Suites about videos from the command line: a table, rows with reasons, frames as an option, and the report of them."""

import pytest

import harness.plugin.cell
import harness.plugin.parametrize
import harness.plugin.session  # noqa: F401
from harness.answering.evaluate import sample_inputs
from harness.models.loading import load_model
from harness.results.refusals import read_refusals
from harness.results.store import Store
from harness.results.table import tables_of
from harness.tasks.isolation import lmms_eval_evaluator
from reports.table.notes import command_of
from tests.support import warm
from tests.support.families import save
from tests.support.suite_runs import PLUGIN, SUITES, environment

pytest.importorskip("av")
pytestmark = pytest.mark.releases
pytest_plugins = ["pytester"]
ALL = "fitprune,fastv,random,uniform,divprune,evs,vidcom2"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for family in ("llava_onevision", "qwen2_5_vl", "llava_next"):
        save(family, folder / family, layers=6, intermediate_size=256)
    # Imports everything here: pytester forgets what is imported inside a run.
    lmms_eval_evaluator()
    next(sample_inputs(load_model(str(folder / "llava_onevision"), "cpu"), "mini-video", limit=1))
    return folder


@pytest.fixture
def run(models, pytester, monkeypatch):
    """Runs a suite in this process, by default the drawn one."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(model, *arguments, suites=("mini_video",)):
        paths = [str(SUITES / f"test_{suite}.py") for suite in suites]
        common = ["-p", "no:cacheprovider", "--results", str(run.results), "--limit", "4"]
        given = [str(models / name) if (models / name).is_dir() else name for name in model.split(",")]
        return pytester.runpytest_inprocess(*PLUGIN, *common, *paths, "--model", ",".join(given), *arguments)

    run.results = pytester.path / "results"
    return run


def test_a_run_ends_in_its_table_and_again_in_what_is_there(run):
    ran = run("llava_onevision", "--pruner", "random,evs", "--reduction", "0.5")
    assert ran.parseoutcomes() == {"passed": 2}
    ran.stdout.fnmatch_lines(["*mini data, 4 questions a suite*", "*Mini videos", "dense *", "evs 0.5 *", "random 0.5 *"])
    first = {result.pruner: result for result in Store(run.results).read_all().results}
    assert {result.generation["frames"] for result in first.values()} == {8}
    again = run("llava_onevision", "--pruner", "random,evs", "--reduction", "0.5", "--frames", "8")
    again.stdout.fnmatch_lines(["cached: 2 of 2 cells*"])


@pytest.mark.exhaustive
def test_other_numbers_of_frames_are_measured_and_reported_apart(run):
    for frames in ((), ("--frames", "3")):
        ran = run("llava_onevision", "--pruner", "random", "--reduction", "0.5", *frames)
        assert ran.parseoutcomes() == {"passed": 1}
        assert "(0 cached)" in ran.stdout.str()
    results = Store(run.results).read_all().results
    assert sorted(result.generation["frames"] for result in results) == [3, 8]
    tables = tables_of(results)
    assert sorted(next(part for part in table.apart.split(", ") if "frames" in part) for table in tables) == [
        "frames 3",
        "frames 8",
    ]
    commands = {table.results[0].generation["frames"]: command_of(table) for table in tables}
    assert " --frames 3" in commands[3]
    assert "--frames" not in commands[8]
    assert all(" --frames 3" in result.command for result in results if result.generation["frames"] == 3)


def test_a_model_that_sees_no_videos_is_one_line_and_a_row(run):
    ran = run("llava_next", "--pruner", "dense,random,evs", "--reduction", "0.5")
    assert ran.ret == 0
    assert ran.parseoutcomes() == {"skipped": 3}
    (line,) = [line for line in ran.stdout.lines if line.startswith("cannot: ")]
    assert "suite 'mini-video' shows videos, and " in line
    assert line.count("llava_next-") == 3
    kept, _ = read_refusals(Store(run.results).files)
    assert {(refusal.cell.pruner, refusal.kind) for refusal in kept} == {
        (name, "cannot") for name in ("dense", "random", "evs")
    }


def test_methods_for_pictures_and_for_videos_have_reasons_on_the_other_kind(run):
    ran = run("llava_onevision", "--pruner", "evs,visionzip", "--reduction", "0.5")
    assert ran.parseoutcomes() == {"passed": 1, "failed": 1}  # it was asked for by name
    ran.stdout.fnmatch_lines(["*visionzip works in the vision tower, *; suite 'mini-video' shows videos"])


@pytest.mark.parametrize(
    ("suite", "arguments", "said"),
    [
        ("gqa", ("--frames", "4"), "--frames 4 has no effect: no suite of this run is about videos; leave it out"),
        ("mini_video", ("--frames", "0"), "--frames 0 is not a whole number of at least 1"),
        ("mvbench", (), "give --data DIR with it and its videos"),
        ("nextqa", ("--data", "hub"), "suite 'nextqa': its videos come from the hub in archives"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(run, suite, arguments, said):
    ran = run("llava_onevision", "--pruner", "random", "--reduction", "0.5", *arguments, suites=(suite,))
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    assert said in ran.stderr.str()
    assert not run.results.exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl"])
def test_every_method_for_videos_in_two_processes(models, family, pytester):
    """The whole command, in processes of its own, and `fitprune report` of what it leaves."""
    command = [warm.python(), "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider", "-n", "2", str(SUITES / "test_mini_video.py")]
    asked = ["--model", str(models / family), "--pruner", ALL, "--reduction", "0.5", "--limit", "12", "--results", "results"]
    pytester.makepyfile(run=f"import subprocess, sys; sys.exit(subprocess.call({[*command, *asked]!r}))")
    around = environment(pytester.path)
    for name, value in around.items():
        pytester._monkeypatch.setenv(name, value)
    ran = pytester.runpython("run.py")
    assert ran.ret == 0, ran.stdout.str()
    results = Store(pytester.path / "results").read_all().results
    assert {result.pruner for result in results} == set(ALL.split(","))
    assert all(abs(result.reduction - 0.5) < 0.03 for result in results)
    report = pytester.run(warm.python(), "-m", "reports", "results", "--markdown", "table.md", "--html", "page")
    assert report.ret == 0, report.stderr.str()
    text = (pytester.path / "table.md").read_text()
    assert all(name in text for name in ("Mini videos", "evs", "vidcom2", "fitprune"))
