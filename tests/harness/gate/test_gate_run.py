"""The gate from the outside: its verdicts, saved runs and comparisons, what JUnit XML carries, what is refused."""

import xml.etree.ElementTree as ET

import pytest

from harness.results.store import Store

pytestmark = pytest.mark.releases
pytest_plugins = ["pytester", "tests.support.suite_runs"]


NOT_TIMED = "*its prefill was not timed in this run and in 'main', so that no latency can be compared; --rerun times it"


def message(result, test):
    """The lines of a failed test's message."""
    return result.stdout.str().partition(f"_ {test} _")[2].lstrip("_").strip().split("\n\n")[0].splitlines()


def test_certified_passes_only_what_is_shown(run):
    result = run("--gate", "certified", "--max-drop", "12", "--reduction", "0.5")
    outcome = {read.pruner: read.verdict for read in Store(run.folder).read_all().results}
    # Of 30 images none, two, and fifteen lost something; no difference on 30 images is shown to be below 11.6 points.
    assert outcome == {"dense": "pass", "fitprune": "pass", "fastv": "undecided", "random": "fail"}
    result.assert_outcomes(passed=2, failed=2)
    first, second = message(result, "test_gqa[m-fastv-0.5]")[:2]
    assert first.startswith("undecided: ")
    assert "m-fastv-0.5 on gqa drops 5.0 points, 95 % interval " in first
    assert "n = 60: neither above nor below the allowed 12 with 95 % confidence; about " in first
    assert first.endswith(" questions would decide")
    assert second.startswith("FLOPs saved: 40.0% end to end")
    result.stdout.fnmatch_lines(["fitprune: *; a drop not shown to be below 12 points fails; results: *"])
    result.stdout.fnmatch_lines(["undecided: *fastv-0.5 on gqa: about * questions would decide"])


def test_the_default_gate_passes_what_is_not_shown_to_be_lost(run):
    assert run("--max-drop", "12", "--reduction", "0.5", "--pruner", "fastv").ret == 0
    (read,), _ = Store(run.folder).read_all()
    assert (read.gate, read.verdict, read.max_drop) == ("significant", "pass", 12)
    assert "--gate" not in read.command


def test_the_command_of_a_cell_names_its_gate_and_its_own_threshold(run):
    run("--gate", "certified", "--max-drop", "2,gqa:20", "--reduction", "0.5", "--pruner", "fitprune", suites=("gqa", "pope"))
    commands = {read.suite: read.command for read in Store(run.folder).read_all().results}
    assert commands["gqa"].endswith("--max-drop 20 --gate certified")
    assert commands["pope"].endswith("--max-drop 2 --gate certified")


def test_a_threshold_of_one_suite_leaves_the_default_to_the_others(run):
    run("--max-drop", "gqa:90", "--reduction", "0.5", "--pruner", "random", suites=("gqa", "pope"))
    assert {read.suite: (read.verdict, read.max_drop) for read in Store(run.folder).read_all().results} == {
        "gqa": ("pass", 90),
        "pope": ("fail", 1),
    }


def save(run, *arguments):
    assert run("--save", "main", "--pruner", "dense,fitprune", "--reduction", "0.5", "--max-drop", "100", *arguments).ret == 0


def compare(run, *arguments, pruner="dense,fitprune"):
    return run("--compare", "main", "--rerun", "--pruner", pruner, "--reduction", "0.5", "--max-drop", "100", *arguments)


def test_a_saved_run_lies_beside_the_results_and_is_no_part_of_them(run):
    save(run)
    saved, notes = Store(run.folder / "saved" / "main").read_all()
    assert [read.pruner for read in saved] == ["dense", "fitprune"]
    assert not notes
    assert len(Store(run.folder).read_all().results) == 2
    assert all(Store(run.folder / "saved" / "main").read_answers(read) for read in saved)


def test_the_same_again_differs_nowhere(run):
    save(run)
    result = compare(run, "--compare-fail", "1")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["fitprune: *; compared with 'main'; results: *"])
    result.stdout.fnmatch_lines(["compared with 'main': 0 of 2 cells differ with 95 % confidence"])


def test_a_loss_against_the_saved_run_fails_in_one_line(run, monkeypatch):
    save(run)
    monkeypatch.setenv("FAKE_WORSE", "30")
    result = compare(run, "--compare-fail", "1")
    result.assert_outcomes(passed=1, failed=1)
    (line,) = message(result, "test_gqa[m-fitprune-0.5]")[:1]
    assert line.startswith("lost 50.0 points against 'main' (100.0 → 50.0) on gqa, allowed 1: ")
    assert line.endswith("m-fitprune-0.5, 95 % interval of the drop 25.5 to 69.0, n = 60")
    result.stdout.fnmatch_lines(["compared with 'main': 1 of 2 cells differ with 95 % confidence"])
    result.stdout.fnmatch_lines(["  lost 50.0 points against 'main' (100.0 → 50.0) on gqa, allowed 1: *m-fitprune-0.5, * ✗"])
    assert "Traceback" not in result.stdout.str()


def test_without_a_threshold_a_loss_is_said_and_fails_nothing(run, monkeypatch):
    save(run)
    monkeypatch.setenv("FAKE_WORSE", "30")
    result = compare(run, "--compare-fail", "pope:1")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["  lost 50.0 points against 'main' (100.0 → 50.0) on gqa: *m-fitprune-0.5, *, n = 60"])


def test_a_certified_comparison_wants_proof(run):
    save(run)
    result = compare(run, "--compare-fail", "5", "--gate", "certified")
    result.assert_outcomes(failed=2)  # also dense: two runs are two runs
    (line,) = message(result, "test_gqa[m-fitprune-0.5]")[:1]
    assert "undecided: " in line
    assert "m-fitprune-0.5 on gqa, compared with 'main', drops 0.0 points, 95 % interval −11." in line


def test_a_slower_prefill_fails(run, monkeypatch):
    save(run)
    monkeypatch.setenv("FAKE_PREFILL", "1.0")
    assert compare(run, "--compare-fail", "latency:30%").ret == 0
    result = compare(run, "--compare-fail", "latency:10%")
    result.assert_outcomes(passed=1, failed=1)  # the dense model has no time but its own to be measured by
    (line,) = message(result, "test_gqa[m-fitprune-0.5]")[:1]
    assert line.endswith("its prefill takes 25% more of the dense model's time than in 'main'; allowed: 10%")


def test_a_latency_that_was_not_measured_is_no_pass(run, monkeypatch):
    monkeypatch.setenv("FAKE_PREFILL", "nan")
    save(run)
    assert compare(run).ret == 0
    result = compare(run, "--compare-fail", "latency:10%")
    assert result.ret == 1
    result.stdout.fnmatch_lines([NOT_TIMED])


def test_a_latency_of_an_earlier_run_is_compared_with_nothing(run):
    """The cell is cached: its time is as old as the saved one, and says nothing about the code of today."""
    save(run)
    common = ("--compare", "main", "--pruner", "fitprune", "--reduction", "0.5", "--max-drop", "100")
    result = run(*common)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["cached: 1 of 1 cells *"])
    result = run(*common, "--compare-fail", "latency:10%")
    assert result.ret == 1
    result.stdout.fnmatch_lines([NOT_TIMED])


def test_a_cell_that_was_not_saved_is_said_and_fails_under_a_threshold(run):
    save(run)
    result = compare(run, pruner="fastv")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*m-fastv-0.5 on gqa is not in the saved run 'main'"])
    assert compare(run, "--compare-fail", "1", pruner="fastv").ret == 1


def test_saving_again_replaces_and_an_earlier_run_is_saved_from_the_cache(run):
    save(run)
    first = Store(run.folder / "saved" / "main").read_all().results
    save(run, "--limit", "40")
    second = Store(run.folder / "saved" / "main").read_all().results
    assert (len(first), len(second)) == (2, 2)
    assert {read.limit for read in second} == {40}
    save(run)  # from the cache
    assert {read.limit for read in Store(run.folder / "saved" / "main").read_all().results} == {None}


def test_other_questions_are_refused_in_one_line_before_work(run, pytester):
    save(run, "--limit", "20")
    result = compare(run)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: saved run 'main' answered other questions: it was made with --data */d --limit 20"])


def test_other_answers_than_those_to_the_same_questions_are_refused(run):
    save(run)
    store = Store(run.folder / "saved" / "main")
    for read in store.read_all().results:
        path = store.folder / f"{read.name}.answers.jsonl"
        path.write_text(path.read_text().replace("what?", "where?"))
    result = compare(run)
    assert result.ret == 1
    assert "they are not those that were written with the result" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gate", "certain"], "--gate certain is not significant, certified or sequential"),
        (["--max-drop", "gpa:1"], "unknown suite 'gpa'; did you mean gqa*"),
        (["--max-drop", "gqa:x"], "--max-drop gqa:x is not a number of points from 0 to 100"),
        (["--save", "../x"], "--save ../x is not a name made of letters, digits, '.', '_' and '-'"),
        (["--compare", "nothing"], "unknown saved run 'nothing'; no run is saved in *saved: --save NAME saves one"),
        (["--compare-fail", "1"], "--compare-fail says what may be lost against a saved run; name it with --compare NAME"),
        (["--compare", "a", "--save", "a"], "--save a and --compare a name one run*"),
        (["--compare", "a", "--compare-fail", "latency:1"], "--compare-fail latency:1 is not a share of the prefill time*"),
    ],
)
def test_bad_input_is_one_line_and_status_4(run, arguments, said):
    result = run(*arguments)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {said}"])
    assert not run.folder.exists()


def test_an_unknown_saved_run_has_its_nearest_names(run):
    save(run)
    result = run("--compare", "mian")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: unknown saved run 'mian'; did you mean main?"])


def test_junit_xml_carries_the_figures(run, pytester):
    save(run)
    compare(run, "--gate", "certified", "--max-drop", "12", "--junitxml", "out.xml", pruner="fitprune,fastv,random")
    cases = ET.parse(pytester.path / "out.xml").iter("testcase")
    figures = {case.get("name"): {entry.get("name"): entry.get("value") for entry in case.iter("property")} for case in cases}
    same, lost, undecided = (figures[f"test_gqa[m-{name}-0.5]"] for name in ("fitprune", "random", "fastv"))
    assert (same["compared_with"], same["compared_drop"], same["compared_prefill_change"]) == ("main", "0.0", "0.0")
    assert (lost["verdict"], lost["gate"], lost["max_drop"], lost["n"]) == ("fail", "certified", "12.0", "60")
    assert float(lost["drop_low"]) == pytest.approx(25.5, abs=0.05)
    assert float(lost["drop_high"]) == pytest.approx(69.0, abs=0.05)
    assert "needed" not in lost
    assert float(undecided["needed"]) > 60
    assert not any(value in ("nan", "None") for found in figures.values() for value in found.values())
