"""The plugin from the outside: a run of the suites, its table, its exit status, what it refuses and what it leaves alone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import transformers.models.llama.modeling_llama  # noqa: F401  (models of later tests hold on to it)
from transformers import AutoConfig  # noqa: F401

from baselines.registry import COMPOSED
from harness.results.refusals import read_refusals
from harness.results.store import Store
from tests.support import (
    fake_bench,
    tiny_llava,
)
from tests.support.suite_runs import PLUGIN, SUITES, command, environment

pytestmark = pytest.mark.releases
pytest_plugins = ["pytester", "tests.support.suite_runs"]


def test_collecting_reads_like_a_list_of_cells(run):
    result = run("--collect-only", "-q", "--reduction", "0.3,0.5", "--pruner", "dense,fitprune", suites=("gqa", "pope"))
    assert result.ret == 0
    cells = [line.rpartition("/")[2] for line in result.outlines if "::" in line]
    assert cells == [
        f"test_{suite}.py::test_{suite}[m-{cell}]"
        for suite in ("gqa", "pope")
        for cell in ("dense", "fitprune-0.3", "fitprune-0.5")
    ]
    assert not run.folder.exists()


def test_all_stands_for_every_pruner(run):
    result = run("--collect-only", "-q", "--pruner", "all", "--reduction", "0.5")
    for pruner in ("dense", "fitprune-0.5", "fastv-0.5", "random-0.5"):
        result.stdout.fnmatch_lines([f"*test_gqa*m-{pruner}*"])
    assert "+" not in "".join(line for line in result.outlines if "::" in line)


def test_pruners_in_sequence_are_a_row(run):
    result = run(
        "--collect-only", "-q", "--pruner", "visionzip+fitprune,random", "--reduction", "0.5", "--positions", "authors,kept"
    )
    cells = [line.rpartition("[m-")[2] for line in result.outlines if "::" in line]
    assert cells == ["visionzip+fitprune-0.5]", "visionzip+fitprune-0.5-ids-kept]", "random-0.5]"]


def test_composed_stands_for_pairs_beside_all(run):
    result = run("--collect-only", "-q", "--pruner", "fastv,composed,gprune+dart", "--reduction", "0.5", suites=("gqa",))
    cells = [line.rpartition("[m-")[2].removesuffix("-0.5]") for line in result.outlines if "::" in line]
    assert cells == ["fastv", *COMPOSED]
    assert cells[1] == "divprune+fitprune"
    assert cells[-1] == "gprune+dart"


def test_dense_against_itself_passes(run):
    result = run("--pruner", "dense", "--max-drop", "1")
    assert result.ret == 0
    (read,), _ = Store(run.folder).read_all()
    assert (read.drop, read.drop_ci95, read.reduction, read.verdict) == (0, (0, 0), 0, "pass")


def test_a_failing_gate_says_what_was_lost_in_two_lines(run):
    result = run("--pruner", "random", "--reduction", "0.9", "--max-drop", "1")
    assert result.ret == 1
    text = result.stdout.str()
    message = text.partition("_ test_gqa[m-random-0.9] _")[2].partition("===")[0].strip("_\n").splitlines()
    assert len(message) == 2
    assert message[0].startswith("lost 50.0 points (100.0 → 50.0) on gqa, allowed 1: ")
    assert message[0].endswith("m-random-0.9, 95 % interval 25.5 to 69.0, n = 60")
    assert message[1] == "FLOPs saved: 40.0% end to end (1 → 0.6 G per question); 90.0% of the visual tokens'"
    assert "Traceback" not in text
    (read,), _ = Store(run.folder).read_all()
    assert (read.verdict, read.max_drop) == ("fail", 1)
    assert read.command.startswith("pytest --pyargs suites.test_gqa --model ")
    assert read.command.endswith(" --max-drop 1")


def test_the_table_has_dense_on_top_and_marks_what_failed_or_cannot(run):
    result = run("--max-drop", "1", suites=("gqa", "pope"))
    assert result.ret == 1
    table = result.stdout.str().partition("accuracy against FLOPs")[2].splitlines()
    start = next(place for place, line in enumerate(table) if line.lstrip().startswith("average"))
    rows = [line for line in table[start + 1 :] if line.strip()]
    assert table[start].split() == ["average", "worst", "suite", "saved", "time", *["GFLOPs", "of", "dense", "GQA", "POPE"]]
    assert rows[0].split() == ["dense", "100.0", "–", "0.0%", "1.00", "1.00", "100%", "100.0", "100.0"]
    names = [" ".join(row.split()[:2]) for row in rows[1:9]]
    both = [f"{name} {r}" for r in (0.3, 0.5) for name in ("fitprune", "fastv", "random")]
    assert names == [*both, "fitprune 0.7", "random 0.7"]
    lost = rows[1 + names.index("random 0.3")]
    assert lost.count("50.0 (50.0 ± 21.7) ✗") == 2
    assert lost.split()[6:14] == ["GQA", "50.0", "±", "21.7", "30.0%", "0.80", "0.60", "60%"]
    assert max(map(len, table[start : start + 10])) <= 160  # the headline above it names folders, of any length
    result.stdout.fnmatch_lines(["cannot: *fastv-0.7: FastV cannot save 70.0%; it reaches 60.0%"])
    assert result.parseoutcomes()["skipped"] == 2
    refusals, _ = read_refusals(run.folder)
    assert {(refusal.cell.pruner, refusal.cell.reduction, refusal.cell.suite) for refusal in refusals} == {
        ("fastv", 0.7, "gqa"),
        ("fastv", 0.7, "pope"),
    }
    assert {refusal.reason for refusal in refusals} == {"FastV cannot save 70.0%; it reaches 60.0%"}
    assert refusals[0].command.startswith("pytest --pyargs suites.test_")


@pytest.mark.parametrize("refused", ["", "no such precision"], ids=["an exception", "a line"])
def test_a_failed_cell_is_noted_in_the_folder_until_it_has_a_result(run, monkeypatch, refused):
    """A result of another day is no failure, and a failure is no result."""
    monkeypatch.setenv("FAKE_CRASH", "m-fastv-0.5")
    monkeypatch.setenv("FAKE_REFUSE", refused)
    cells = ("--pruner", "dense,fastv", "--reduction", "0.5")
    assert run(*cells, suites=("gqa", "pope")).ret == 1
    refusals, damaged = read_refusals(run.folder)
    assert not damaged
    assert {(refusal.cell.label(), refusal.cell.suite, refusal.kind) for refusal in refusals} == {
        (refusals[0].cell.label(), suite, "failed") for suite in ("gqa", "pope")
    }
    assert refused in refusals[0].reason
    assert refused or refusals[0].reason.startswith("ZeroDivisionError: no cache")
    assert [result.pruner for result in Store(run.folder).read_all().results] == ["dense", "dense"]
    monkeypatch.delenv("FAKE_CRASH")
    assert run(*cells).ret == 0
    (left,), _ = read_refusals(run.folder)
    assert left.cell.suite == "pope"


def test_a_comparison_that_cannot_be_made_is_no_failed_cell(run):
    """Its result is written; what failed is something else."""
    assert run("--pruner", "fastv", "--reduction", "0.5", "--save", "before").ret == 0
    (saved,) = run.folder.rglob("before/*.answers.jsonl")
    saved.write_text("")
    result = run("--pruner", "fastv", "--reduction", "0.5", "--compare", "before", "--rerun")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*cannot read the answers in *before*"])
    assert read_refusals(run.folder) == ([], [])


def test_too_few_images_are_undecided_and_said_to_be(run):
    result = run("--pruner", "random", "--reduction", "0.9", "--limit", "2", "--max-drop", "1")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["undecided: *random-0.9 on gqa: too few images for an interval"])


def test_figures_reach_junit_xml(run, pytester):
    run("--pruner", "fastv", "--reduction", "0.5", "--junitxml", "out.xml")
    assert '<property name="drop" value="5.0"' in (pytester.path / "out.xml").read_text()


def evaluated(run):
    return run.log.read_text().splitlines()


def test_the_help_shows_the_options_from_anywhere(pytester, monkeypatch):
    """Of a project without suites, too; where another plugin has one of our names, its own."""
    monkeypatch.setenv("COLUMNS", "100")
    shown = pytester.runpytest_inprocess(*PLUGIN, "--help")
    shown.stdout.fnmatch_lines(["fitprune: accuracy *", "*--max-drop=POINTS*", "*above --max-drop with 95 %*"])
    assert "%%" not in shown.stdout.str()
    pytester.makeconftest("def pytest_addoption(parser): parser.addoption('--model', help='a car')")
    pytester.runpytest_inprocess(*PLUGIN, "--help").stdout.fnmatch_lines(["*--max-drop=POINTS*", "*--model=MODEL*a car*"])


def test_a_second_run_measures_nothing_and_judges_again(run):
    first = run("--pruner", "dense,random", "--reduction", "0.3", "--max-drop", "60")
    assert first.ret == 0
    before, table = evaluated(run), first.stdout.str().partition("accuracy against FLOPs")[2]
    files = {path.name: path.read_bytes() for path in run.folder.glob("*.json*")}
    second = run("--pruner", "dense,random", "--reduction", "0.3", "--max-drop", "60", "-v")
    assert second.ret == 0
    assert evaluated(run) == before
    assert {path.name: path.read_bytes() for path in run.folder.glob("*.json*")} == files
    second.stdout.fnmatch_lines(["*test_gqa?m-random-0.3? CACHED*", "*cached: 2 of 2 cells are earlier runs' (--rerun*"])
    rows = [line for line in table.splitlines() if line.startswith(("dense", "random"))]
    assert rows
    assert all(row in second.stdout.str() for row in rows)
    third = run("--pruner", "dense,random", "--reduction", "0.3", "--max-drop", "1")
    assert third.ret == 1
    third.stdout.fnmatch_lines(["*lost 50.0 points*allowed 1: *m-random-0.3,*"])
    assert evaluated(run) == before


def test_rerun_measures_again(run):
    run("--pruner", "random", "--reduction", "0.3")
    run("--pruner", "random", "--reduction", "0.3", "--rerun")
    assert [line.startswith("dense") for line in evaluated(run)] == [False, True, False, True]
    assert len(Store(run.folder).read_all().results) == 1


def test_more_cells_are_added_to_those_that_are_there(run):
    run("--pruner", "random", "--reduction", "0.3")
    result = run("--pruner", "random", "--reduction", "0.3,0.5", suites=("gqa", "pope"))
    result.stdout.fnmatch_lines(["*cached: 1 of 4 cells*"])
    assert len(Store(run.folder).read_all().results) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "llava-tini"], "unknown model 'llava-tini'; did you mean llava-tiny*"),
        (["--model", "llava-1.5-7b"], "the weights of 'llava-1.5-7b' are not on this machine*download*llava-tiny*"),
        (["--model", ","], "--model , has an empty entry"),
        (["--pruner", "fastw"], "unknown pruner 'fastw'; did you mean fastv*"),
        (["--pruner", "visionzip+fastw"], "unknown pruner 'fastw'; did you mean fastv*"),
        (["--pruner", "dense+fastv"], "dense prunes nothing*leave it out of 'dense+fastv'."),
        (["--reduction", "0"], "--reduction 0 is not between 0 and 1*"),
        (["--reduction", "0.5,1"], "--reduction 1 is not between 0 and 1*"),
        (["--reduction", "half"], "--reduction half is not between 0 and 1*"),
        (["--reduction", "nan"], "--reduction nan is not between 0 and 1*"),
        (["--limit", "0"], "--limit 0 is not a whole number of at least 1"),
        (["--limit", "-3"], "--limit -3 is not a whole number of at least 1"),
        (["--batch-size", "x"], "--batch-size x is not a whole number of at least 1"),
        (["--max-drop", "-1"], "--max-drop -1 is not a number of points from 0 to 100"),
        (["--device", "gpu"], "unknown device 'gpu'; write cpu, cuda, cuda:N or auto"),
        (["--data", "nowhere"], "data folder 'nowhere' does not exist*"),
        (["--results", "file"], "results folder file: * is not a folder*"),
        (["--results", "file/below"], "results folder file/below: * is not a folder*"),
        (["--recipe", "nothing.json"], "cannot read the recipe nothing.json*"),
        (["--recipe", "file"], "the recipe file is not JSON*"),
        (["--recipe", "file", "--reduction", "0.5"], "--recipe and --reduction exclude each other*"),
        (["--recipe", "file", "--pruner", "fastv"], "--recipe is for --pruner fitprune*"),
        (["--recipe", "file", "--pruner", "dense"], "--recipe has no effect on --pruner dense*leave it out"),
        (["--positions", "repacked", "--pruner", "dense"], "--positions has no effect on --pruner dense*leave it out"),
        (["--reduction", "0.5", "--pruner", "dense"], "--reduction has no effect on --pruner dense*leave it out"),
    ],
)
def test_bad_input_is_one_line_and_status_4(run, pytester, arguments, said):
    (pytester.path / "file").write_text("no folder, no recipe")
    before = sorted(pytester.path.iterdir())
    result = run(*arguments)
    assert result.ret == 4
    lines = [line for line in result.errlines + result.outlines if line.strip()]
    assert len(lines) == 1, lines
    result.stderr.fnmatch_lines([f"ERROR: {said}"])
    assert [path for path in sorted(pytester.path.iterdir()) if path.name != "__pycache__"] == before


def test_an_unknown_suite_has_its_nearest_names(run):
    result = run(suites=("popp",))
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: unknown suite 'popp'; did you mean pope or pope_pop or pope-f1?"])


def test_truncated_data_are_refused_before_work(run, place, pytester):
    tiny_llava.write_suites(pytester.path / "d")
    damaged = next((pytester.path / "d" / "pope").rglob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    result = run("--data", str(pytester.path / "d"), "--pruner", "random", suites=("gqa", "pope"))
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *pope*parquet: truncated or not a parquet file*"])
    assert not run.log.exists()


def test_a_recipe_of_another_model_is_refused(run, pytester):
    from fitprune import Recipe

    model = tiny_llava.save_tiny(pytester.path / "tiny")
    Recipe([1, 2], 16).save(pytester.path / "two.json")
    result = run("--model", str(model), "--recipe", "two.json")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --recipe two.json does not fit *tiny: this recipe has 2 layers; the model has 3*"])
    Recipe([0, 1, 2], 16).save(pytester.path / "three.json")
    result = run("--model", str(model), "--recipe", "three.json", "--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_gqa?tiny-dense?", "*test_gqa?tiny-fitprune-three?"])


def test_other_peoples_tests_are_left_alone(pytester):
    pytester.makeconftest(
        """
        import pytest
        def pytest_addoption(parser):
            for name in ("--model", "--limit", "--seed", "--data", "--device", "--results"):
                parser.addoption(name, default="theirs")
        @pytest.fixture
        def cell(request):
            return request.config.getoption("--model")
        """
    )
    pytester.makepyfile("def test_theirs(cell): assert cell == 'theirs'")
    result = pytester.runpytest_inprocess(*PLUGIN, "-p", "no:cacheprovider")
    assert result.ret == 0
    assert result.parseoutcomes() == {"passed": 1}
    assert "fitprune:" not in result.stdout.str()


def test_where_no_suites_are_the_plugin_imports_nothing(pytester):
    pytester.makepyfile(
        """
        import sys
        def test_light():
            assert not {"torch", "transformers", "lmms_eval", "pyarrow", "scipy", "pandas", "fitprune"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess(*PLUGIN, "-p", "no:cacheprovider", "-q")
    assert result.ret == 0


def test_suites_collected_with_everything_else_are_skipped(pytester, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "suites"]:
        monkeypatch.delitem(sys.modules, name)  # this project's, which another test may have imported
    pytester.mkpydir("suites")
    (pytester.path / "suites" / "__init__.py").write_text("fitprune_suites = True\n")
    (pytester.path / "suites" / "test_gqa.py").write_text("def test_gqa(cell): cell.check()\n")
    result = pytester.runpytest_inprocess(*PLUGIN, "-p", "no:cacheprovider", "-rs")
    assert result.parseoutcomes() == {"skipped": 1}
    result.stdout.fnmatch_lines(["*cells run when the suites are named: pytest suites/"])


def test_two_workers_share_the_dense_answers_and_fill_one_table(place, tmp_path):
    paths = [str(SUITES / f"test_{suite}.py") for suite in ("gqa", "pope", "mme")]
    ran = subprocess.run(
        command(place, tmp_path, "-n", "2", "--max-drop", "1", "--junitxml", "out.xml", *paths),
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    evaluated = [line.rsplit(" ", 1)[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(line for line in evaluated if line.startswith("dense")) == ["dense gqa", "dense mme", "dense pope"]
    assert len(evaluated) == len(set(evaluated)) == 3 + 3 * 8  # FastV cannot reach 0.7
    assert ran.stdout.count("accuracy against FLOPs") == 1
    assert "50.0 (50.0 ± 21.7) ✗" in ran.stdout
    results, notes = Store(tmp_path / "results").read_all()
    assert (len(results), notes) == (27, [])
    assert {result.latency_ms["processes"] for result in results} == {2}
    assert (tmp_path / "out.xml").read_text().count('<property name="verdict" value="fail"') == 9  # random, on 3 suites


def test_a_killed_run_leaves_every_finished_cell(place, tmp_path):
    hanging = environment(tmp_path) | {"FAKE_HANG": f"{place / 'm'}-fastv-0.5", "TMPDIR": str(tmp_path)}
    arguments = command(place, tmp_path, "--pruner", "dense,random,fastv", "--reduction", "0.5", str(SUITES / "test_gqa.py"))
    with subprocess.Popen(arguments, env=hanging, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True) as running:
        try:
            deadline = time.monotonic() + 600
            log = tmp_path / "log"
            while time.monotonic() < deadline and not (log.exists() and "fastv" in log.read_text()):
                time.sleep(0.1)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
    results, notes = Store(tmp_path / "results").read_all()
    assert [(result.pruner, result.verdict) for result in results] == [("dense", ""), ("random", "")]
    assert not notes
    assert all(Store(tmp_path / "results").read_answers(result) for result in results)
    assert not list((tmp_path / "results").glob(".writing*"))
    assert json.loads(next((tmp_path / "results").glob("*.json")).read_text())


def test_a_cell_that_pruned_nothing_that_its_scoring_did_not_cost_fails(run, monkeypatch):
    plain = fake_bench.FakeEvaluation.evaluate

    def evaluate(self, resolved, *arguments, **options):
        found = plain(self, resolved, *arguments, **options)
        found.reduction = found.reduction and -0.021
        return found

    monkeypatch.setattr(fake_bench.FakeEvaluation, "evaluate", evaluate)
    result = run("--pruner", "fastv", "--reduction", "0.5")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*fastv-0.5 on gqa pruned nothing that its scoring did not cost: -2.1% of the visual tokens' FLOPs saved*"]
    )
    assert not list(run.folder.glob("*.json"))
